//! `apiban.reload`.

use super::{cluster, crop, crop_to, Arguments, Fault, Reply, Service};
use crate::config::{files, reading, Config};
use crate::feed::ApiKey;
use crate::shared::cluster::Ask;
use crate::shared::requests::Request;

/// `apiban.reload [force]`.
pub fn reload(service: &Service<'_>, arguments: &Arguments) -> Result<Reply, Fault> {
    let force = match arguments.get(0) {
        None => false,
        Some("force") => true,
        Some(other) => {
            return Err(Fault::argument(
                "force",
                format_args!("\"{}\" is not \"force\"", crop(other)),
            ))
        }
    };
    if let Err(fault) = check_files(service.config) {
        let files = [&service.config.api_key_file, &service.config.trust_file];
        if files.iter().any(|path| reading::hangs(path)) {
            // The updater takes them over once they can be read.
            service.ask(Request::Reload);
        }
        return Err(fault);
    }
    if force {
        service.shared().requests.ask(Request::Force);
        cluster::ask(service, Ask::Force);
    }
    cluster::ask(service, Ask::Reload);
    service.ask(Request::Reload);
    let hint = if service.config.trust_file.is_empty() {
        " (no trust_file is set)"
    } else {
        ""
    };
    Ok(Reply::Text(format!("Ok. Reload has begun.{hint}")))
}

/// Reads the files that the updater is about to read: the reply of the command says what is wrong with them.
fn check_files(config: &Config) -> Result<(), Fault> {
    let unusable = |problem: String| Fault {
        code: 500,
        // kamcmd shows the first 128 bytes of a fault.
        text: crop_to(&format!("nothing was changed: {problem}"), 240),
    };
    if let (ApiKey::Unusable(problem), _) = files::read_key(config) {
        return Err(unusable(problem));
    }
    let path = config.trust_file.as_str();
    if path.is_empty() {
        return Ok(());
    }
    files::read_trust_file(path).map_err(|error| unusable(format!("trust_file {error}")))?;
    // Together with the parameter `trust` it may be too long.
    files::read_trust(config).map_err(|error| unusable(error.to_string()))?;
    Ok(())
}
