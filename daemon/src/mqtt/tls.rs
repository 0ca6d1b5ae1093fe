//! TLS by rustls: who is believed to be the broker, and who we are to it.
//!
//! rumqttc could read PEM files itself, but would take the provider of cryptography
//! that some other part of the process had installed, and its errors name no file. So
//! it is given a finished `ClientConfig`.

use std::error::Error;
use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;

use rumqttc::v5::{ConnectionError, StateError};
use rumqttc::{TlsConfiguration, Transport};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{AlertDescription, CertificateError, ClientConfig, RootCertStore};

use crate::config::{Broker, Problem, read_bytes};

const HOST: &str = "broker.host";
const CA_FILE: &str = "broker.ca-file";
const CLIENT_CERT_FILE: &str = "broker.client-cert-file";
const CLIENT_KEY_FILE: &str = "broker.client-key-file";

const NO_TLS: &str = "check that the broker speaks TLS at broker.port";

type Certificates = Vec<CertificateDer<'static>>;

/// Everything read and checked that a connection by TLS needs.
#[derive(Clone)]
pub struct Tls(Arc<ClientConfig>);

impl fmt::Debug for Tls {
    /// There is a private key in it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tls")
    }
}

impl Tls {
    /// Reads the files that are named; `None` when the broker is spoken to in clear.
    pub fn load(broker: &Broker) -> Result<Option<Self>, Problem> {
        if !broker.tls {
            return Ok(None);
        }
        ServerName::try_from(broker.host.as_str()).map_err(|_| {
            let message = "is no name that a certificate could hold; give the one in the broker's";
            problem(HOST, message)
        })?;
        let roots = match &broker.ca_file {
            Some(path) => roots(path)?,
            None => system_roots()?,
        };
        let identity = match (&broker.client_cert_file, &broker.client_key_file) {
            (Some(certificate), Some(key)) => Some((
                certificates(CLIENT_CERT_FILE, certificate)?,
                private_key(key)?,
            )),
            _ => None,
        };
        let mut config = client_config(roots, identity)?;
        config.alpn_protocols = broker.alpn.iter().map(|p| p.clone().into_bytes()).collect();
        Ok(Some(Self(Arc::new(config))))
    }

    /// What to do about a connection that TLS ended, in the words of `[broker]`; `None`
    /// when it was something else.
    pub fn describe(error: &ConnectionError) -> Option<String> {
        describe(error)
    }

    /// For a connection of `rumqttc`.
    pub fn transport(&self) -> Transport {
        Transport::Tls(TlsConfiguration::Rustls(Arc::clone(&self.0)))
    }
}

fn client_config(
    roots: RootCertStore,
    identity: Option<(Certificates, PrivateKeyDer<'static>)>,
) -> Result<ClientConfig, Problem> {
    let provider: Arc<CryptoProvider> = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| problem("broker.tls", e))?
        .with_root_certificates(roots);
    let Some((certificates, key)) = identity else {
        return Ok(builder.with_no_client_auth());
    };
    builder
        .with_client_auth_cert(certificates, key)
        .map_err(|e| match e {
            rustls::Error::InconsistentKeys(_) => problem(
                CLIENT_KEY_FILE,
                "is not the key of the certificate in client-cert-file",
            ),
            rustls::Error::InvalidCertificate(e) => problem(CLIENT_CERT_FILE, e),
            // Says what kinds of keys there are, not what is in this one.
            e => problem(CLIENT_KEY_FILE, e),
        })
}

fn roots(path: &Path) -> Result<RootCertStore, Problem> {
    let mut roots = RootCertStore::empty();
    // A collection may have some that are too old to be understood.
    let (added, _) = roots.add_parsable_certificates(certificates(CA_FILE, path)?);
    if added == 0 {
        let message = format!("{} has no certificate that can be used", path.display());
        return Err(problem(CA_FILE, message));
    }
    Ok(roots)
}

/// Those of the system that rustls understands, which need not be all.
fn system_roots() -> Result<RootCertStore, Problem> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() {
        let message = "is missing, and the system has no certificates either; give the file, or \
                       install the package ca-certificates";
        return Err(problem(CA_FILE, message));
    }
    Ok(roots)
}

/// At least one.
fn certificates(key: &'static str, path: &Path) -> Result<Certificates, Problem> {
    let pem = read_bytes(path).map_err(|e| problem(key, e))?;
    let certificates: Result<Certificates, _> = CertificateDer::pem_slice_iter(&pem).collect();
    match certificates {
        Ok(all) if !all.is_empty() => Ok(all),
        Ok(_) => Err(problem(
            key,
            format!(
                "{} has no certificate in it; give a PEM file, with -----BEGIN CERTIFICATE-----",
                path.display()
            ),
        )),
        Err(e) => Err(problem(key, format!("{}: {e}", path.display()))),
    }
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, Problem> {
    let pem = read_bytes(path).map_err(|e| problem(CLIENT_KEY_FILE, e))?;
    // The error may quote what it stumbled over.
    PrivateKeyDer::from_pem_slice(&pem).map_err(|_| {
        problem(
            CLIENT_KEY_FILE,
            format!(
                "{} has no private key in it that can be read; give a PEM file, with -----BEGIN \
                 PRIVATE KEY-----, not encrypted",
                path.display()
            ),
        )
    })
}

fn problem(key: &'static str, message: impl ToString) -> Problem {
    Problem {
        key,
        message: message.to_string(),
    }
}

/// What to do about a connection that TLS ended; `None` when it was something else.
pub(super) fn describe(error: &ConnectionError) -> Option<String> {
    let Some(error) = rustls_error(error) else {
        // The handshake was cut short, as one who does not understand it would do.
        return matches!(error, ConnectionError::Tls(_)).then(|| format!("{error}: {NO_TLS}"));
    };
    let remedy = match error {
        rustls::Error::InvalidCertificate(reason) => match reason {
            // The latter: signed by another of the same name.
            CertificateError::UnknownIssuer | CertificateError::BadSignature => {
                "set broker.ca-file to the certificate of the one who signed the broker's"
            }
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                "set broker.host to a name that is in the broker's certificate"
            }
            CertificateError::Expired
            | CertificateError::ExpiredContext { .. }
            | CertificateError::NotValidYet
            | CertificateError::NotValidYetContext { .. } => {
                "renew the broker's certificate, or set the clock of this machine"
            }
            _ => "see the broker's certificate",
        },
        rustls::Error::AlertReceived(
            AlertDescription::CertificateRequired
            | AlertDescription::BadCertificate
            | AlertDescription::UnsupportedCertificate
            | AlertDescription::CertificateRevoked
            | AlertDescription::CertificateExpired
            | AlertDescription::CertificateUnknown
            | AlertDescription::UnknownCA
            | AlertDescription::HandshakeFailure
            | AlertDescription::AccessDenied,
        ) => {
            "the broker does not take our certificate: check broker.client-cert-file and \
             broker.client-key-file"
        }
        rustls::Error::AlertReceived(AlertDescription::NoApplicationProtocol)
        | rustls::Error::NoApplicationProtocol => "check broker.alpn",
        rustls::Error::InvalidMessage(_) => NO_TLS,
        _ => "see the broker's log",
    };
    Some(format!("TLS: {error}: {remedy}"))
}

/// rustls' own error, somewhere below that of the connection.
fn rustls_error(error: &ConnectionError) -> Option<&rustls::Error> {
    let mut next: Option<&(dyn Error + 'static)> = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        next = cause(error);
    }
    None
}

/// `source`, also of those that do not tell all of it.
fn cause<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a (dyn Error + 'static)> {
    if let Some(StateError::Deserialization(inner)) = error.downcast_ref() {
        return Some(inner);
    }
    // The source of an I/O error is that of the error it wraps.
    match error.downcast_ref::<io::Error>().and_then(|e| e.get_ref()) {
        Some(inner) => Some(inner),
        None => error.source(),
    }
}

#[cfg(test)]
mod tests {
    use rumqttc::v5::{TlsError, mqttbytes};

    use super::*;

    fn broker() -> Broker {
        Broker {
            tls: true,
            ca_file: Some("no/such/ca.pem".into()),
            ..Broker::default()
        }
    }

    fn io(error: rustls::Error) -> io::Error {
        io::Error::new(io::ErrorKind::InvalidData, error)
    }

    #[test]
    fn in_clear_no_file_is_read() {
        let broker = Broker {
            tls: false,
            ..broker()
        };
        assert!(matches!(Tls::load(&broker), Ok(None)));
    }

    #[test]
    fn what_is_wrong_has_its_key() {
        let e = Tls::load(&broker()).unwrap_err().to_string();
        assert!(
            e.starts_with("broker.ca-file: cannot read no/such/ca.pem"),
            "{e}"
        );
        let broker = Broker {
            host: "-?-".into(),
            ..broker()
        };
        let e = Tls::load(&broker).unwrap_err();
        assert_eq!(e.key, HOST);
    }

    #[test]
    fn errors_of_tls_are_found_wherever_they_are_and_name_the_key() {
        let unknown = || io(CertificateError::UnknownIssuer.into());
        let required = || rustls::Error::AlertReceived(AlertDescription::CertificateRequired);
        for (error, key) in [
            (TlsError::Io(unknown()).into(), "broker.ca-file"),
            (ConnectionError::Io(unknown()), "broker.ca-file"),
            (
                TlsError::Io(io(CertificateError::NotValidForName.into())).into(),
                "broker.host",
            ),
            (
                StateError::Deserialization(mqttbytes::Error::Io(io(required()))).into(),
                "broker.client-cert-file",
            ),
        ] {
            let said = describe(&error).unwrap();
            assert!(said.starts_with("TLS: ") && said.contains(key), "{said}");
        }
    }

    #[test]
    fn errors_without_tls_are_left_alone_and_a_cut_handshake_is_not() {
        let refused = io::Error::from(io::ErrorKind::ConnectionRefused);
        assert_eq!(describe(&ConnectionError::Io(refused)), None);
        assert_eq!(describe(&ConnectionError::RequestsDone), None);
        let cut = TlsError::Io(io::ErrorKind::UnexpectedEof.into()).into();
        assert!(describe(&cut).unwrap().ends_with(NO_TLS));
    }
}
