//! The HTTP client: blocking, one exchange at a time, every limit explicit.

use std::io::{self, Read};
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime};

use ureq::http::{self, header, HeaderMap, Uri};
use ureq::tls::{Certificate, RootCerts, TlsConfig};
use ureq::{Agent, Body, Proxy};
use zeroize::Zeroizing;

use super::{clean, redirect, Fetch, FetchError, FetchErrorKind, Request, Response};
use crate::feed::control_id::ControlId;
use crate::feed::key::Key;
use crate::feed::parse::MAX_BODY;
use crate::feed::source::{ApiVersion, Source};

/// Most redirects followed in one exchange.
const MAX_REDIRECTS: u32 = 3;
/// A connection idle for longer is not used again: pages follow each other fast or not at all.
const MAX_IDLE: Duration = Duration::from_secs(5);

/// How the client reaches the service.
#[derive(Debug, Clone)]
pub struct HttpSettings {
    /// The `User-Agent`: name and version of the program, such as `apiban.so/1.2.3`.
    pub product: String,
    /// What to fetch from where.
    pub source: Source,
    /// Limit in seconds for one whole exchange with its redirects and its body, 1 or more.
    pub timeout: u64,
    /// PEM file of the certificate authorities to trust instead of the system's (which
    /// `SSL_CERT_FILE` and `SSL_CERT_DIR` name if they are set).
    pub ca_file: Option<PathBuf>,
}

/// One question to the service, and whose it is.
struct Question<'a> {
    key: &'a Key,
    about: About<'a>,
    /// Most requests, redirects included.
    allowed: u32,
}

/// What is asked.
enum About<'a> {
    /// The part of the list behind this control ID, or its beginning.
    List(Option<&'a ControlId>),
    /// Whether this address is listed.
    Address(IpAddr),
}

/// Speaks both versions of the API. Proxies named by `HTTPS_PROXY` and its like are used, but never
/// for a service on this host.
pub struct HttpClient {
    settings: HttpSettings,
    /// Made at the first exchange, so in the process and thread that uses it.
    agent: Option<Prepared>,
}

/// What speaks HTTP, and whether it knows the certificate authorities.
struct Prepared {
    agent: Agent,
    knows_authorities: bool,
}

impl HttpClient {
    /// A client that has done nothing yet: neither files nor the network are touched.
    pub fn new(settings: HttpSettings) -> Self {
        HttpClient {
            settings,
            agent: None,
        }
    }

    /// What an operator should know about the environment, as one line for the log.
    pub fn notice(&self) -> Option<String> {
        let base: Option<Uri> = self.settings.source.base().parse().ok();
        let host = base.as_ref().and_then(Uri::host).unwrap_or_default();
        let variable = socks_variable(|name| std::env::var(name).ok())?;
        (!is_this_host(host)).then(|| {
            format!(
                "feed: {variable} names a SOCKS proxy, which is not supported: the service is asked \
                 without a proxy; an http:// proxy would be used"
            )
        })
    }

    /// The agent for this URL. Reading the certificate authorities of a system takes some milliseconds: it is
    /// done when the first connection needs them.
    fn agent(&mut self, uri: &Uri) -> Result<Agent, FetchErrorKind> {
        let encrypted = uri.scheme_str() == Some("https");
        match &self.agent {
            Some(ready) if ready.knows_authorities || !encrypted => Ok(ready.agent.clone()),
            _ => {
                let ready = prepare(&self.settings, encrypted)?;
                Ok(self.agent.insert(ready).agent.clone())
            }
        }
    }

    /// Asks whether one address is listed. The answer is as the service gives it.
    ///
    /// # Errors
    /// As for [`Fetch::fetch`].
    pub fn check(&mut self, key: &Key, ip: IpAddr) -> Result<Response, FetchError> {
        self.exchange(&Question {
            key,
            about: About::Address(ip),
            allowed: MAX_REDIRECTS + 1,
        })
    }

    fn exchange(&mut self, question: &Question<'_>) -> Result<Response, FetchError> {
        let deadline = Instant::now() + Duration::from_secs(self.settings.timeout.max(1));
        let result = self.exchange_until(question, deadline);
        if matches!(&result, Err(error) if matches!(error.kind, FetchErrorKind::Tls(_))) {
            // The system's certificates may have been renewed since they were read.
            self.agent = None;
        }
        result
    }

    fn exchange_until(
        &mut self,
        question: &Question<'_>,
        deadline: Instant,
    ) -> Result<Response, FetchError> {
        let mut uri = self.uri(question)?;
        for redirects in 0..=MAX_REDIRECTS {
            let counted = |kind| FetchError { kind, redirects };
            // A service on plain http may lead to https.
            let agent = self.agent(&uri).map_err(counted)?;
            let answer = self
                .send(&agent, &uri, question, deadline)
                .map_err(counted)?;
            if !matches!(answer.status().as_u16(), 301 | 302 | 303 | 307 | 308) {
                return self.read(answer, redirects, question.key).map_err(counted);
            }
            let location = answer.headers().get(header::LOCATION);
            let location = location.and_then(|value| value.to_str().ok()).unwrap_or("");
            uri = redirect::target(&uri, location).map_err(|reason| {
                counted(FetchErrorKind::Redirect(clean(question.key, &reason)))
            })?;
            if redirects == MAX_REDIRECTS {
                let reason = format!("more than {MAX_REDIRECTS} in a row");
                return Err(counted(FetchErrorKind::Redirect(reason)));
            }
            if redirects + 1 >= question.allowed {
                return Err(counted(FetchErrorKind::OverBudget));
            }
        }
        // The loop returns at its last turn.
        Err(FetchErrorKind::Internal("too many redirects".to_owned()).into())
    }

    fn uri(&self, question: &Question<'_>) -> Result<Uri, FetchErrorKind> {
        let base = self.settings.source.base();
        let text = match (self.settings.source.version(), &question.about) {
            (ApiVersion::V2, About::List(_)) => Zeroizing::new(format!("{base}/get")),
            (ApiVersion::V2, About::Address(_)) => Zeroizing::new(format!("{base}/check")),
            (ApiVersion::V1, about) => {
                let key = question.key.percent_encoded();
                let rest = match about {
                    About::List(None) => "banned".to_owned(),
                    About::List(Some(id)) => format!("banned/{id}"),
                    About::Address(ip) => format!("check/{ip}"),
                };
                Zeroizing::new(format!("{base}/{}/{rest}", &*key))
            }
        };
        text.parse()
            .map_err(|_| FetchErrorKind::Internal("api_url makes no valid URL".to_owned()))
    }

    fn send(
        &self,
        agent: &Agent,
        uri: &Uri,
        question: &Question<'_>,
        deadline: Instant,
    ) -> Result<http::Response<Body>, FetchErrorKind> {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(FetchErrorKind::Timeout(self.settings.timeout));
        }
        let sent = match self.settings.source.version() {
            ApiVersion::V1 => agent
                .get(uri)
                .config()
                .timeout_global(Some(left))
                .build()
                .call(),
            ApiVersion::V2 => {
                let set = self.settings.source.dataset().as_str();
                let bearer = Zeroizing::new(format!("Bearer {}", question.key.expose()));
                // All values are plain words: a set's name, digits, an address.
                let body = match &question.about {
                    About::List(id) => {
                        let id = id.map_or(ControlId::BEGINNING, ControlId::as_str);
                        format!("{{\"set\":\"{set}\",\"id\":\"{id}\"}}")
                    }
                    About::Address(ip) => {
                        format!("{{\"set\":\"{set}\",\"ipaddress\":\"{ip}\"}}")
                    }
                };
                agent
                    .post(uri)
                    .header(header::AUTHORIZATION, bearer.as_str())
                    .header(header::CONTENT_TYPE, "application/json")
                    .config()
                    .timeout_global(Some(left))
                    .build()
                    .send(body)
            }
        };
        sent.map_err(|error| self.explain(error, question.key))
    }

    fn read(
        &self,
        mut answer: http::Response<Body>,
        redirects: u32,
        key: &Key,
    ) -> Result<Response, FetchErrorKind> {
        let status = answer.status().as_u16();
        let retry_after = retry_after(answer.headers());
        let mut body = Vec::new();
        let limit = MAX_BODY as u64 + 1;
        let outcome = answer
            .body_mut()
            .with_config()
            .limit(limit + 1)
            .reader()
            .take(limit)
            .read_to_end(&mut body);
        // With these the status alone says everything: the body may fail.
        let status_is_enough = matches!(status, 401 | 403 | 429 | 500..=599);
        let error = match outcome {
            Ok(_) if body.len() <= MAX_BODY => None,
            Ok(_) => Some(FetchErrorKind::TooLong),
            Err(error) => Some(self.explain(ureq::Error::from(error), key)),
        };
        match error {
            None => {}
            Some(_) if status_is_enough => body.clear(),
            Some(error) => return Err(error),
        }
        Ok(Response {
            status,
            retry_after,
            body,
            redirects,
        })
    }

    /// The library's error in our terms, without the key.
    fn explain(&self, error: ureq::Error, key: &Key) -> FetchErrorKind {
        let text = |error: &dyn std::fmt::Display| clean(key, &error.to_string());
        match &error {
            ureq::Error::Timeout(_) => FetchErrorKind::Timeout(self.settings.timeout),
            ureq::Error::HostNotFound => FetchErrorKind::Resolve(self.host()),
            ureq::Error::Tls(_) | ureq::Error::Rustls(_) | ureq::Error::Pem(_) => {
                FetchErrorKind::Tls(text(&error))
            }
            ureq::Error::Io(error) => self.explain_io(error, key),
            ureq::Error::Protocol(_) | ureq::Error::LargeResponseHeader(..) => {
                FetchErrorKind::Protocol(text(&error))
            }
            _ => FetchErrorKind::Connection(text(&error)),
        }
    }

    fn explain_io(&self, error: &io::Error, key: &Key) -> FetchErrorKind {
        let inner = error.get_ref();
        let lookup = error.to_string().contains("lookup address");
        match error.kind() {
            io::ErrorKind::TimedOut => FetchErrorKind::Timeout(self.settings.timeout),
            // How rustls reports its own errors through the connection.
            io::ErrorKind::InvalidData => FetchErrorKind::Tls(clean(key, &error.to_string())),
            _ if lookup => FetchErrorKind::Resolve(self.host()),
            _ => {
                let cause = inner.and_then(|inner| inner.source());
                let cause = cause.map(|cause| format!(": {cause}")).unwrap_or_default();
                let text = format!("{}: {error}{cause}", self.host());
                FetchErrorKind::Connection(clean(key, &text))
            }
        }
    }

    fn host(&self) -> String {
        let uri: Option<Uri> = self.settings.source.base().parse().ok();
        uri.and_then(|uri| uri.authority().map(|a| a.to_string()))
            .unwrap_or_default()
    }
}

impl Fetch for HttpClient {
    fn fetch(&mut self, request: &Request) -> Result<Response, FetchError> {
        self.exchange(&Question {
            key: &request.key,
            about: About::List(request.after.as_ref()),
            allowed: request.allowed,
        })
    }
}

fn prepare(settings: &HttpSettings, encrypted: bool) -> Result<Prepared, FetchErrorKind> {
    let base: Option<Uri> = settings.source.base().parse().ok();
    let host = base.as_ref().and_then(Uri::host).unwrap_or_default();
    let proxy = if is_this_host(host) || socks_variable(|name| std::env::var(name).ok()).is_some() {
        None
    } else {
        Proxy::try_from_env()
    };
    // A proxy may be spoken to over TLS, whatever the service is.
    let knows_authorities = encrypted || proxy.is_some();
    let roots = if knows_authorities {
        load_roots(settings)
    } else {
        Vec::new()
    };
    if roots.is_empty() && encrypted {
        let advice = "no CA certificates found: install ca-certificates or set SSL_CERT_FILE";
        return Err(FetchErrorKind::Tls(advice.to_owned()));
    }
    let tls = TlsConfig::builder()
        .root_certs(RootCerts::from(roots))
        .build();
    let config = Agent::config_builder()
        .http_status_as_error(false)
        .max_redirects(0)
        .max_redirects_will_error(false)
        .timeout_global(Some(Duration::from_secs(settings.timeout.max(1))))
        .user_agent(settings.product.as_str())
        .accept("application/json")
        .max_idle_age(MAX_IDLE)
        .proxy(proxy)
        .tls_config(tls)
        .build();
    Ok(Prepared {
        agent: config.new_agent(),
        knows_authorities,
    })
}

/// The variables that may name a proxy, in the order in which the library looks at them.
const PROXY_VARIABLES: [&str; 6] = [
    "ALL_PROXY",
    "all_proxy",
    "HTTPS_PROXY",
    "https_proxy",
    "HTTP_PROXY",
    "http_proxy",
];

/// The variable of the environment that decides on the proxy, if it names one that speaks SOCKS, which
/// this client does not.
fn socks_variable(value_of: impl Fn(&str) -> Option<String>) -> Option<&'static str> {
    let (name, value) = PROXY_VARIABLES
        .into_iter()
        .find_map(|name| Some((name, value_of(name).filter(|value| !value.is_empty())?)))?;
    let is_socks = value
        .get(..5)
        .is_some_and(|start| start.eq_ignore_ascii_case("socks"));
    is_socks.then_some(name)
}

fn load_roots(settings: &HttpSettings) -> Vec<Certificate<'static>> {
    // A damaged certificate among good ones must not stop the feed: what is readable counts.
    let found = match &settings.ca_file {
        Some(file) => rustls_native_certs::load_certs_from_paths(Some(file), None),
        None => rustls_native_certs::load_native_certs(),
    };
    let certs = found.certs.iter();
    certs
        .map(|der| Certificate::from_der(der.as_ref()).to_owned())
        .collect()
}

fn is_this_host(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    bare.eq_ignore_ascii_case("localhost")
        || bare.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// Seconds, or an HTTP date that is counted from the answer's own `Date` if it has one.
fn retry_after(headers: &HeaderMap) -> Option<u64> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let wanted = text(header::RETRY_AFTER)?.trim();
    if let Ok(seconds) = wanted.parse::<u64>() {
        return Some(seconds);
    }
    let until = httpdate::parse_http_date(wanted).ok()?;
    let now = text(header::DATE)
        .and_then(|date| httpdate::parse_http_date(date).ok())
        .unwrap_or_else(SystemTime::now);
    Some(until.duration_since(now).map_or(0, |left| left.as_secs()))
}
