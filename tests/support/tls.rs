//! SIP over TLS: a certificate for Kamailio and a client that trusts exactly it.

use super::sip::{connect_from, Sip, ToIp};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use std::net::SocketAddr;
use std::sync::Arc;

/// A self-signed certificate for `127.0.0.1`, `::1` and `localhost`.
pub struct Certificate {
    /// What Kamailio's tls module gets.
    pub certificate_pem: String,
    /// Its key.
    pub key_pem: String,
    der: CertificateDer<'static>,
}

impl Certificate {
    /// Makes a new one.
    pub fn generate() -> Certificate {
        let names = ["127.0.0.1", "::1", "localhost"].map(String::from);
        let made = rcgen::generate_simple_self_signed(names).expect("certificate");
        Certificate {
            certificate_pem: made.cert.pem(),
            key_pem: made.signing_key.serialize_pem(),
            der: made.cert.der().clone(),
        }
    }

    /// A TLS connection from `from`, for SIP.
    pub fn connect(&self, from: impl ToIp, to: SocketAddr) -> std::io::Result<Sip> {
        let mut roots = RootCertStore::empty();
        roots.add(self.der.clone()).expect("own certificate");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("TLS versions")
            .with_root_certificates(roots)
            .with_no_client_auth();
        let name = ServerName::from(to.ip());
        let session = ClientConnection::new(Arc::new(config), name).expect("TLS client");
        let tcp = connect_from(from.to_ip()?, to)?;
        // The handshake happens with the first write, and blocks no longer than that may.
        tcp.set_read_timeout(Some(super::sip::deadline()))?;
        let stream = StreamOwned::new(session, tcp.try_clone()?);
        Sip::over("TLS", Box::new(stream), tcp)
    }
}
