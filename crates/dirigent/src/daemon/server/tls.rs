//! The control API over TCP: TLS in which both sides prove who they are.

use super::listen::port;
use crate::failure::{Failure, Result};
use dirigent_config::Api;
use rustls::RootCertStore;
use rustls::server::{ServerConfig, WebPkiClientVerifier};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use std::sync::Arc;
use std::time::SystemTime;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

/// What certificates and keys are there, and since when.
pub struct Tls {
    api: Api,
    acceptor: TlsAcceptor,
    read: [Option<SystemTime>; 3],
}

impl Tls {
    /// Reads the files.
    pub fn of(api: Api) -> Result<Self> {
        let read = times(&api);
        let acceptor = acceptor(&api)?;
        Ok(Self { api, acceptor, read })
    }

    /// Opens the port.
    pub async fn listen(&self) -> Result<TcpListener> {
        port("[director.api]", self.api.listen).await
    }

    /// For the next connection: with the files as they are now. While they are wrong, those from before hold.
    pub fn acceptor(&mut self) -> TlsAcceptor {
        let now = times(&self.api);
        if now != self.read {
            self.read = now;
            match acceptor(&self.api) {
                Ok(acceptor) => {
                    tracing::info!(event = "certificates", ok = true, "read the control API's certificates again");
                    self.acceptor = acceptor;
                }
                Err(failure) => {
                    tracing::error!(
                        event = "certificates",
                        ok = false,
                        "the control API's certificates, of which the old ones hold: {failure}"
                    );
                }
            }
        }
        self.acceptor.clone()
    }
}

/// When the files were written.
fn times(api: &Api) -> [Option<SystemTime>; 3] {
    api.files().map(|(_, file)| std::fs::metadata(file).and_then(|data| data.modified()).ok())
}

fn acceptor(api: &Api) -> Result<TlsAcceptor> {
    let place = |key: &str, file: &str| format!("[director.api] {key} {file}");
    let wrong = |key: &str, file: &str, what: String| Failure::new(place(key, file), what, "name a file in PEM");
    let certificates = |key: &str, file: &str| {
        let text = std::fs::read(file).map_err(|e| Failure::io(place(key, file), &e))?;
        let all: std::result::Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
        match all {
            Ok(all) if !all.is_empty() => Ok(all),
            Ok(_) => Err(wrong(key, file, "there is no certificate in it".into())),
            Err(e) => Err(wrong(key, file, e.to_string())),
        }
    };
    let mut roots = RootCertStore::empty();
    for root in certificates("clients", &api.clients)? {
        roots.add(root).map_err(|e| wrong("clients", &api.clients, e.to_string()))?;
    }
    let chain = certificates("certificate", &api.certificate)?;
    let text = std::fs::read(&api.key).map_err(|e| Failure::io(place("key", &api.key), &e))?;
    let key = PrivateKeyDer::from_pem_slice(&text).map_err(|e| wrong("key", &api.key, e.to_string()))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let clients = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
        .build()
        .map_err(|e| wrong("clients", &api.clients, e.to_string()))?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .and_then(|config| config.with_client_cert_verifier(clients).with_single_cert(chain, key))
        .map_err(|e| wrong("certificate", &api.certificate, e.to_string()))?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// The names in a certificate: those of its subject's alternative names, and without any its common name (RFC 9525).
pub fn names(certificate: &CertificateDer<'_>) -> Vec<String> {
    let Ok((_, certificate)) = X509Certificate::from_der(certificate) else { return Vec::new() };
    let alternatives = certificate.subject_alternative_name().ok().flatten();
    let named = |name: &GeneralName<'_>| match name {
        GeneralName::DNSName(name) | GeneralName::RFC822Name(name) | GeneralName::URI(name) => Some((*name).to_owned()),
        _ => None,
    };
    let names: Vec<_> = alternatives.iter().flat_map(|all| &all.value.general_names).filter_map(named).collect();
    if !names.is_empty() {
        return names;
    }
    certificate.subject().iter_common_name().filter_map(|name| name.as_str().ok()).map(str::to_owned).collect()
}
