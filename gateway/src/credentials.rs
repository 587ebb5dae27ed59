//! Secrets and certificate authorities, read from files: how anmin proves who it is, and whom it believes.

use std::path::Path;
use std::sync::Arc;

use hyper_rustls::ConfigBuilderExt;

/// Text that no log and no panic may show.
#[derive(Clone)]
pub struct Secret(pub(crate) String);

impl Secret {
    /// The content of a file without the newline that editors add.
    pub fn read(path: &Path) -> Result<Self, String> {
        let text = std::fs::read_to_string(path)
            .map_err(|error| format!("{} cannot be read: {error}", path.display()))?
            .trim_end_matches(['\r', '\n'])
            .to_owned();
        if text.is_empty() { Err(format!("{} is empty", path.display())) } else { Ok(Self(text)) }
    }

    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("(secret)")
    }
}

/// How to speak TLS: to peers signed by the authorities in `ca`, else, where `secure`, by those this machine trusts.
pub fn tls(ca: Option<&Path>, secure: bool) -> Result<rustls::ClientConfig, String> {
    let builder = rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| format!("TLS cannot start: {error}"))?;
    let builder = match ca {
        Some(path) => builder.with_root_certificates(roots(path)?),
        None if secure => builder
            .with_native_roots()
            .map_err(|error| format!("this machine's certificate authorities cannot be read: {error}"))?,
        None => builder.with_root_certificates(rustls::RootCertStore::empty()),
    };
    Ok(builder.with_no_client_auth())
}

/// The authorities in a PEM file, at least one.
pub fn roots(path: &Path) -> Result<rustls::RootCertStore, String> {
    let name = path.display();
    let pem = std::fs::read(path).map_err(|error| format!("{name} cannot be read: {error}"))?;
    let mut roots = rustls::RootCertStore::empty();
    for certificate in rustls_pemfile::certs(&mut pem.as_slice()) {
        let certificate = certificate.map_err(|error| format!("{name} is not PEM: {error}"))?;
        roots.add(certificate).map_err(|error| format!("{name} holds a certificate that cannot be used: {error}"))?;
    }
    if roots.is_empty() { Err(format!("{name} holds no certificate")) } else { Ok(roots) }
}
