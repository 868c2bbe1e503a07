//! Key and trust files: read again when asked, and when a file system that hung answers.

use super::{Discovery, EventSink, Updater};
use crate::clock::UnixMillis;
use crate::config::{files, reading};
use crate::feed::ApiKey;
use crate::shared::published::Text;
use crate::{error, notice, warning};

impl<'a, H: Discovery + EventSink> Updater<'a, H> {
    /// Reads key and trust files again; what cannot be read stays as it was.
    pub(super) fn reload_files(&mut self, now: UnixMillis) {
        let (key, open) = files::read_key(self.config);
        if let Some(text) = open {
            warning!("{text}");
        }
        match (key, self.key.key()) {
            (ApiKey::Unusable(_), _) if reading::hangs(&self.config.api_key_file) => {
                self.report_hanging("api_key_file", &self.config.api_key_file);
            }
            (ApiKey::Unusable(problem), Some(_)) => error!("{problem}; the key stays as it was"),
            (ApiKey::Unusable(problem), None) => {
                error!("{problem}; the feed stays off");
                self.key = ApiKey::Unusable(problem);
            }
            (key, _) => self.key = key,
        }
        match self.trust.reload(self.config) {
            Ok(()) => {
                self.shared.published.set_text(Text::TrustLastError, "");
                self.follow_trust(now);
            }
            Err(error) => {
                let error = error.to_string();
                if reading::hangs(&self.config.trust_file) {
                    self.report_hanging("trust_file", &self.config.trust_file);
                } else {
                    error!("{error}; the trust list stays as it was");
                }
                self.shared.published.set_text(Text::TrustLastError, &error);
            }
        }
    }

    /// Notes a file whose file system does not answer, and says so once.
    fn report_hanging(&mut self, parameter: &str, path: &'a str) {
        if !self.hanging.contains(&path) {
            self.hanging.push(path);
            warning!(
                "{parameter} {path}: its file system does not answer; what was read before stays in force, and the file \
                 is read as soon as it does"
            );
        }
    }

    /// Reads the files whose file system answers again.
    pub(super) fn follow_hanging_files(&mut self, now: UnixMillis) {
        let before = self.hanging.len();
        self.hanging.retain(|path| {
            let hangs = reading::hangs(path);
            if !hangs {
                notice!("{path} can be read again");
            }
            hangs
        });
        if self.hanging.len() < before {
            self.reload_files(now);
            self.engine.reload(now, self.key.clone(), false);
            self.carry_out();
        }
    }
}
