//! Secrets, certificates and their authorities, read from files: how anmin proves who it is, and whom it believes.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use anmin_sensors::document::Reader;
use hyper_rustls::ConfigBuilderExt;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::client::{ResolvesClientCert, Resumption};
use rustls::pki_types::pem::{self, PemObject as _};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{DigitallySignedStruct, DistinguishedName, SignatureScheme};
use tracing::{info, warn};

/// Before the name of a credential that systemd hands over, where the path of a file is asked for.
pub const CREDENTIAL: &str = "credential:";

/// Where a file is that the configuration names: beside it, or, as `credential:NAME`, with what systemd hands over at the
/// start (`LoadCredential=`, systemd.exec(5)). Whoever looks from outside of the service looks where systemd keeps its own.
pub fn named_file(base: &Path, file: impl AsRef<Path>) -> PathBuf {
    let file = file.as_ref();
    match file.to_str().and_then(|text| text.strip_prefix(CREDENTIAL)) {
        Some(name) => {
            let handed = std::env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from);
            // A name and no way out of the folder.
            handed.unwrap_or_else(|| "/run/credentials/anmin.service".into()).join(name.replace('/', "_"))
        }
        None => base.join(file),
    }
}

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

/// Whom anmin believes where it dials, and who it is itself: `tls_ca`, `tls_cert`, `tls_key`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientTls {
    /// Authorities of the peer in PEM; without them those that this machine trusts.
    pub ca: Option<PathBuf>,
    /// Certificate and key in PEM, for peers that ask for one. Files that have changed are in force at the next connection.
    pub own: Option<(PathBuf, PathBuf)>,
}

impl ClientTls {
    /// Whatever is wrong with the files is a fault at its key.
    pub fn read(r: &Reader<'_>, base: &Path) -> Self {
        let ca = r.optional::<String>("tls_ca").map(|file| named_file(base, file)).filter(|path| {
            let sound = roots(path);
            sound.map_err(|why| r.fault("tls_ca", format!("`tls_ca`: {why}"), None)).is_ok()
        });
        let own = pair(r, base).filter(|(certificate, key)| {
            let sound = Renewed::read(certificate, key);
            sound.map_err(|error| not_together(r, &error)).is_ok()
        });
        Self { ca, own }
    }

    /// `secure`: TLS will be spoken, so that somebody must be believed.
    pub fn config(&self, secure: bool) -> Result<rustls::ClientConfig, String> {
        let builder = rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| format!("TLS cannot start: {error}"))?;
        let builder = match &self.ca {
            Some(path) => builder.with_root_certificates(roots(path)?),
            None if secure => builder
                .with_native_roots()
                .map_err(|error| format!("this machine's certificate authorities cannot be read: {error}"))?,
            None => builder.with_root_certificates(rustls::RootCertStore::empty()),
        };
        let Some((certificate, key)) = self.own.clone() else { return Ok(builder.with_no_client_auth()) };
        let mut config = builder.with_client_cert_resolver(Arc::new(Renewed::new(certificate, key)?));
        // A session that is resumed would go on by the certificate that it began with.
        config.resumption = Resumption::disabled();
        Ok(config)
    }
}

/// The authorities in a PEM file, at least one.
pub fn roots(path: &Path) -> Result<rustls::RootCertStore, String> {
    let name = path.display();
    let pem = fs::read(path).map_err(|error| format!("{name} cannot be read: {error}"))?;
    let mut roots = rustls::RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        let certificate = certificate.map_err(|error| format!("{name} is not PEM: {error}"))?;
        roots.add(certificate).map_err(|error| format!("{name} holds a certificate that cannot be used: {error}"))?;
    }
    if roots.is_empty() { Err(format!("{name} holds no certificate")) } else { Ok(roots) }
}

/// A server's `tls_cert` and `tls_key`, both or none, and `tls_client_ca`, by whose authorities a client must prove who it is;
/// whatever is wrong with them is a fault at its key.
pub fn server_tls(r: &Reader<'_>, base: &Path) -> Option<Arc<rustls::ServerConfig>> {
    let own = pair(r, base);
    let clients = r.optional::<String>("tls_client_ca").map(|file| RenewedClients::new(named_file(base, file)));
    let clients = match clients {
        Some(Err(why)) => {
            r.fault("tls_client_ca", why, None);
            return None;
        }
        Some(Ok(clients)) => Some(clients),
        None => None,
    };
    if clients.is_some() && !r.has("tls_cert") {
        r.fault("tls_client_ca", "`tls_client_ca` without `tls_cert`: who speaks no TLS shows no certificate", None);
    }
    let (certificate, key) = own?;
    let built = Renewed::new(certificate, key).and_then(|renewed| {
        let builder = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?;
        let Some(clients) = clients else {
            return Ok(builder.with_no_client_auth().with_cert_resolver(Arc::new(renewed)));
        };
        let mut config = builder.with_client_cert_verifier(Arc::new(clients)).with_cert_resolver(Arc::new(renewed));
        // A session that is resumed would go on by the authority that it began with.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(config)
    });
    built.map(Arc::new).map_err(|error| not_together(r, &error)).ok()
}

/// `tls_cert` and `tls_key`, both or none, each sound by itself.
fn pair(r: &Reader<'_>, base: &Path) -> Option<(PathBuf, PathBuf)> {
    let certificate = sound_pem(r, "tls_cert", base, |pem| {
        let found = CertificateDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>()?;
        Ok(if found.is_empty() { Some("holds no certificate in PEM form") } else { None })
    });
    let key = sound_pem(r, "tls_key", base, |pem| match PrivateKeyDer::from_pem_slice(pem) {
        Ok(_) => Ok(None),
        Err(pem::Error::NoItemsFound) => Ok(Some("holds no private key in PEM form")),
        Err(error) => Err(error),
    });
    match (certificate, key) {
        (Some(certificate), Some(key)) => return Some((certificate, key)),
        (Some(_), None) if !r.has("tls_key") => r.fault("tls_cert", "`tls_cert` without `tls_key`", None),
        (None, Some(_)) if !r.has("tls_cert") => r.fault("tls_key", "`tls_key` without `tls_cert`", None),
        _ => {}
    }
    None
}

fn not_together(r: &Reader<'_>, error: &str) {
    r.fault("tls_key", format!("`tls_cert` and `tls_key` do not go together: {error}"), None);
}

/// The path that `key` names, where its file is sound by itself: `lacks` says what is not in it.
fn sound_pem(
    r: &Reader<'_>,
    key: &'static str,
    base: &Path,
    lacks: impl FnOnce(&[u8]) -> Result<Option<&'static str>, pem::Error>,
) -> Option<PathBuf> {
    let path = named_file(base, r.optional::<String>(key)?);
    let why = match fs::read(&path).map(|text| lacks(&text)) {
        Ok(Ok(None)) => return Some(path),
        Ok(Ok(Some(lacks))) => format!("{}: {lacks}", path.display()),
        Ok(Err(error)) => format!("{}: {error}", path.display()),
        Err(error) => format!("cannot read {}: {error}", path.display()),
    };
    r.fault(key, why, None);
    None
}

/// A certificate and its key, read anew at the next connection after their files have changed: who renews them
/// restarts nothing. What cannot be used then leaves the last in force, and is said.
#[derive(Debug)]
pub struct Renewed {
    certificate: PathBuf,
    key: PathBuf,
    in_force: Mutex<(Look, Arc<CertifiedKey>)>,
}

/// Length and time of writing of both files.
type Look = [Seen; 2];

/// Length and time of writing of a file that is there.
type Seen = Option<(u64, SystemTime)>;

fn seen(path: &Path) -> Seen {
    let meta = fs::metadata(path).ok()?;
    Some((meta.len(), meta.modified().ok()?))
}

impl Renewed {
    /// Both files, in PEM. The error says what is wrong with them together; each alone is for the caller.
    pub fn new(certificate: PathBuf, key: PathBuf) -> Result<Self, String> {
        let look = Self::look(&certificate, &key);
        let first = Self::read(&certificate, &key)?;
        Ok(Self { certificate, key, in_force: Mutex::new((look, Arc::new(first))) })
    }

    fn look(certificate: &Path, key: &Path) -> Look {
        [certificate, key].map(seen)
    }

    fn read(certificate: &Path, key: &Path) -> Result<CertifiedKey, String> {
        let open = |path: &Path| fs::read(path).map_err(|error| format!("{} cannot be read: {error}", path.display()));
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&open(certificate)?).collect();
        let chain = chain.map_err(|error| format!("{} is not PEM: {error}", certificate.display()))?;
        let found = PrivateKeyDer::from_pem_slice(&open(key)?).map_err(|error| match error {
            pem::Error::NoItemsFound => format!("{} holds no private key", key.display()),
            error => format!("{} is not PEM: {error}", key.display()),
        })?;
        CertifiedKey::from_der(chain, found, &rustls::crypto::ring::default_provider())
            .map_err(|error| error.to_string())
    }

    /// What the files say now, where it can be used.
    fn in_force(&self) -> Arc<CertifiedKey> {
        let look = Self::look(&self.certificate, &self.key);
        let mut in_force = self.in_force.lock().unwrap_or_else(PoisonError::into_inner);
        if in_force.0 != look {
            // Where they cannot be used they are not tried again before they change again.
            in_force.0 = look;
            let shown = self.certificate.display();
            match Self::read(&self.certificate, &self.key) {
                Ok(new) => {
                    info!("the certificate in {shown} has changed and is in force");
                    in_force.1 = Arc::new(new);
                }
                Err(why) => warn!("{shown} has changed and cannot be used: {why}; the last one stays in force"),
            }
        }
        Arc::clone(&in_force.1)
    }
}

impl ResolvesServerCert for Renewed {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.in_force())
    }
}

impl ResolvesClientCert for Renewed {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(self.in_force())
    }

    fn has_certs(&self) -> bool {
        true
    }
}

/// The authorities of those who dial in, read anew like [`Renewed`]: whoever they no longer vouch for is refused at its next
/// connection.
#[derive(Debug)]
struct RenewedClients {
    file: PathBuf,
    in_force: Mutex<(Seen, Arc<dyn ClientCertVerifier>)>,
}

impl RenewedClients {
    fn new(file: PathBuf) -> Result<Self, String> {
        let look = seen(&file);
        let first = Self::read(&file)?;
        Ok(Self { file, in_force: Mutex::new((look, first)) })
    }

    fn read(file: &Path) -> Result<Arc<dyn ClientCertVerifier>, String> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let built = WebPkiClientVerifier::builder_with_provider(Arc::new(roots(file)?), provider).build();
        built.map_err(|error| format!("{}: {error}", file.display()))
    }

    /// What the file says now, where it can be used.
    fn in_force(&self) -> Arc<dyn ClientCertVerifier> {
        let look = seen(&self.file);
        let mut in_force = self.in_force.lock().unwrap_or_else(PoisonError::into_inner);
        if in_force.0 != look {
            in_force.0 = look;
            let shown = self.file.display();
            match Self::read(&self.file) {
                Ok(new) => {
                    info!("the authorities of clients in {shown} have changed and are in force");
                    in_force.1 = new;
                }
                Err(why) => warn!("{shown} has changed and cannot be used: {why}; the last one stays in force"),
            }
        }
        Arc::clone(&in_force.1)
    }
}

impl ClientCertVerifier for RenewedClients {
    /// None: a client shows whatever certificate it has (RFC 8446 section 4.2.4).
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        self.in_force().verify_client_cert(end_entity, intermediates, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.in_force().verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.in_force().verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.in_force().supported_verify_schemes()
    }
}
