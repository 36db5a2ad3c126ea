//! TLS of checks, by rustls.

use dirigent_config::health::Tls;
use dirigent_health::Why;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio_rustls::TlsConnector;

/// Files are read again after this time: certificates are renewed.
const FRESH: Duration = Duration::from_secs(60);

/// What was made of settings, and when.
type Made = HashMap<(Tls, bool), (Instant, TlsConnector)>;

/// Connectors, by what a check wants of them.
#[derive(Clone, Default)]
pub struct Connectors(Arc<Mutex<Made>>);

impl Connectors {
    /// One by these settings; for HTTP/2 one that insists on it.
    pub fn get(&self, tls: &Tls, http2: bool) -> Result<TlsConnector, Why> {
        // Of SNI and of the connection's end it knows nothing.
        let of = Tls { sni: None, close_notify: false, ..tls.clone() };
        let mut made = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((when, connector)) = made.get(&(of.clone(), http2))
            && when.elapsed() < FRESH
        {
            return Ok(connector.clone());
        }
        let connector = TlsConnector::from(Arc::new(config(&of, http2)?));
        made.retain(|_, (when, _)| when.elapsed() < FRESH);
        made.insert((of, http2), (Instant::now(), connector.clone()));
        Ok(connector)
    }
}

fn config(tls: &Tls, http2: bool) -> Result<ClientConfig, Why> {
    let said = |e: rustls::Error| Why::new(format!("TLS: {e}"));
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder =
        ClientConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions().map_err(said)?;
    let verifier: Arc<dyn ServerCertVerifier> = match &tls.ca {
        None => Arc::new(Anybody(provider)),
        Some(path) => {
            let mut roots = RootCertStore::empty();
            for authority in certificates(path)? {
                roots.add(authority).map_err(|e| Why::new(format!("{path}: {e}")))?;
            }
            let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build();
            verifier.map_err(|e| Why::new(format!("{path}: {e}")))?
        }
    };
    let builder = builder.dangerous().with_custom_certificate_verifier(verifier);
    let mut config = match (&tls.certificate, &tls.key) {
        (Some(certificate), Some(key)) => {
            let private = PrivateKeyDer::from_pem_file(key).map_err(|e| Why::new(format!("{key}: {e}")))?;
            builder.with_client_auth_cert(certificates(certificate)?, private).map_err(said)?
        }
        _ => builder.with_no_client_auth(),
    };
    if http2 {
        config.alpn_protocols = vec![b"h2".to_vec()];
    }
    Ok(config)
}

fn certificates(path: &str) -> Result<Vec<CertificateDer<'static>>, Why> {
    let said = |e: rustls_pki_types::pem::Error| Why::new(format!("{path}: {e}"));
    let all: Vec<_> = CertificateDer::pem_file_iter(path).map_err(said)?.collect::<Result<_, _>>().map_err(said)?;
    if all.is_empty() { Err(Why::new(format!("{path}: no certificate in it"))) } else { Ok(all) }
}

/// Takes any certificate: a check asks whether the server serves, and a real server is reached by an address that its
/// certificate seldom names. Signatures are checked, so that the server has the key of what it shows.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }
    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signed, algorithms)
    }
    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signed, algorithms)
    }
    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
