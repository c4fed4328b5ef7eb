//! TLS: a certificate and its key out of two PEM files, which are read again while the server runs.
//!
//! Only the certificate is this module's. A connection that has shaken hands lives as a plain one does, and is parked as one:
//! what stays of it then is its TLS session, about 10 KiB, and no buffer of hyper's.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rustls::ServerConfig;
use rustls::pki_types::pem::{Error as PemError, PemObject as _};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::TlsAcceptor;
use xxhash_rust::xxh3::Xxh3;

/// Between two looks at the files.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

const CERTIFICATE_FILE: &str = "NEONHUB_TLS_CERTIFICATE_FILE";
const KEY_FILE: &str = "NEONHUB_TLS_KEY_FILE";

/// Where certificate and key lie, both as PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// The server's certificate first, then those that lead to its root.
    pub certificate: PathBuf,
    pub key: PathBuf,
}

/// A file that cannot be worked with. Never says what is in a key's file.
#[derive(Debug, thiserror::Error)]
#[error("{setting} = `{path}` cannot be used: {detail}")]
pub struct TlsError {
    setting: &'static str,
    path: String,
    detail: String,
}

/// What became of a look at the files.
#[derive(Debug)]
pub enum Reload {
    /// They are as they were at the last look.
    Same,
    /// New connections are accepted with what is in them now.
    Taken,
    /// They cannot be used. The pair before them stays.
    Refused(TlsError),
}

/// The pair in use.
pub struct Tls {
    files: TlsFiles,
    config: Mutex<Arc<ServerConfig>>,
    /// Digest of what the last look found.
    seen: Mutex<u64>,
}

impl Tls {
    /// # Errors
    /// A file cannot be read or is not what it should be, or the key is another certificate's.
    pub fn load(files: &TlsFiles) -> Result<Self, TlsError> {
        let found = Found::read(files);
        let seen = Mutex::new(found.digest());
        let config = Mutex::new(Arc::new(found.config(files)?));
        Ok(Self { files: files.clone(), config, seen })
    }

    /// With the pair that is in use now. Sessions of one before it are not resumed.
    pub fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(Arc::clone(&self.config.lock()))
    }

    /// Compares what is in the files, not when they were written: a time may be the same for two writes, and an older file
    /// may take the place of a newer one. Two files cannot be changed at once, so the look in between refuses, and the next
    /// one takes them.
    pub fn look_again(&self) -> Reload {
        let found = Found::read(&self.files);
        let digest = found.digest();
        if std::mem::replace(&mut *self.seen.lock(), digest) == digest {
            return Reload::Same;
        }
        match found.config(&self.files) {
            Ok(config) => {
                *self.config.lock() = Arc::new(config);
                Reload::Taken
            }
            Err(error) => Reload::Refused(error),
        }
    }

    /// Takes what is new in the files, for as long as it is polled.
    pub async fn follow_files(self: Arc<Self>) {
        loop {
            tokio::time::sleep(LOOK_AGAIN).await;
            let tls = Arc::clone(&self);
            let certificate = self.files.certificate.display();
            match tokio::task::spawn_blocking(move || tls.look_again()).await {
                Ok(Reload::Same) => {}
                Ok(Reload::Taken) => tracing::info!(%certificate, "a new TLS certificate is in use"),
                Ok(Reload::Refused(error)) => tracing::error!(%error, "the TLS certificate stays the one before"),
                Err(error) => tracing::error!(%error, "the TLS certificate could not be looked at"),
            }
        }
    }
}

/// What a look found in the files.
struct Found {
    certificate: Result<Vec<u8>, TlsError>,
    key: Result<Vec<u8>, TlsError>,
}

impl Found {
    fn read(files: &TlsFiles) -> Self {
        let read = |setting, path: &Path| std::fs::read(path).map_err(|error| wrong(setting, path, error.to_string()));
        Self { certificate: read(CERTIFICATE_FILE, &files.certificate), key: read(KEY_FILE, &files.key) }
    }

    fn digest(&self) -> u64 {
        let mut digest = Xxh3::new();
        for file in [&self.certificate, &self.key] {
            match file {
                Ok(bytes) => {
                    digest.update(&bytes.len().to_le_bytes());
                    digest.update(bytes);
                }
                Err(error) => digest.update(error.detail.as_bytes()),
            }
        }
        digest.digest()
    }

    fn config(self, files: &TlsFiles) -> Result<ServerConfig, TlsError> {
        let of_certificate = |detail: String| wrong(CERTIFICATE_FILE, &files.certificate, detail);
        let of_key = |detail: String| wrong(KEY_FILE, &files.key, detail);
        let (certificate, key) = (self.certificate?, self.key?);
        let chain = CertificateDer::pem_slice_iter(&certificate).collect::<Result<Vec<_>, _>>();
        // Without the text of a PEM error, which may quote the file.
        let chain = chain.map_err(|_| of_certificate("it is no PEM".to_owned()))?;
        if chain.is_empty() {
            return Err(of_certificate("there is no certificate in it".to_owned()));
        }
        let key = PrivateKeyDer::from_pem_slice(&key).map_err(|error| match error {
            PemError::NoItemsFound => of_key("there is no private key in it, or only an encrypted one".to_owned()),
            _ => of_key("it is no PEM".to_owned()),
        })?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, key));
        let mut config = config.map_err(|error| match error {
            rustls::Error::InconsistentKeys(_) => {
                of_key(format!("it is not the key of the certificate in `{}`", files.certificate.display()))
            }
            rustls::Error::InvalidCertificate(error) => {
                of_certificate(format!("the certificate is malformed: {error}"))
            }
            _ => of_key("it is none of the keys that are known: RSA, ECDSA or Ed25519".to_owned()),
        })?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(config)
    }
}

fn wrong(setting: &'static str, path: &Path, detail: String) -> TlsError {
    TlsError { setting, path: path.display().to_string(), detail }
}

#[cfg(test)]
pub mod tests {
    use std::fs::{read, remove_file, write};

    use tempfile::TempDir;

    use super::*;

    /// A certificate of its own for `localhost`, in PEM files that live as long as this.
    pub struct Issued {
        pub files: TlsFiles,
        pub certificate: CertificateDer<'static>,
        folder: TempDir,
    }

    impl Issued {
        pub fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let issued = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
            let files =
                TlsFiles { certificate: folder.path().join("certificate.pem"), key: folder.path().join("key.pem") };
            write(&files.certificate, issued.cert.pem()).unwrap();
            write(&files.key, issued.signing_key.serialize_pem()).unwrap();
            Self { files, certificate: issued.cert.der().clone(), folder }
        }

        /// Puts the other pair into the places of this one, one file after the other.
        pub fn replace_with(&self, other: &Self) {
            write(&self.files.certificate, read(&other.files.certificate).unwrap()).unwrap();
            write(&self.files.key, read(&other.files.key).unwrap()).unwrap();
        }
    }

    fn fault(files: &TlsFiles) -> String {
        Tls::load(files).err().unwrap().to_string()
    }

    #[test]
    fn a_file_that_is_no_use_is_named_by_its_setting_and_never_quoted() {
        let (pair, other) = (Issued::new(), Issued::new());
        assert!(Tls::load(&pair.files).is_ok());
        let missing = pair.folder.path().join("missing.pem");
        let error = fault(&TlsFiles { certificate: missing.clone(), ..pair.files.clone() });
        assert!(error.starts_with("NEONHUB_TLS_CERTIFICATE_FILE = `") && error.contains("missing.pem"), "{error}");
        let error = fault(&TlsFiles { key: missing, ..pair.files.clone() });
        assert!(error.starts_with("NEONHUB_TLS_KEY_FILE = `") && error.contains("No such file"), "{error}");
        let error = fault(&TlsFiles { key: other.files.key.clone(), ..pair.files.clone() });
        assert!(error.starts_with("NEONHUB_TLS_KEY_FILE = `") && error.contains("not the key of"), "{error}");
        let error = fault(&TlsFiles { certificate: pair.files.key.clone(), key: pair.files.key.clone() });
        assert!(error.starts_with("NEONHUB_TLS_CERTIFICATE_FILE = `") && error.contains("no certificate"), "{error}");
        let error =
            fault(&TlsFiles { certificate: pair.files.certificate.clone(), key: pair.files.certificate.clone() });
        assert!(error.starts_with("NEONHUB_TLS_KEY_FILE = `") && error.contains("no private key"), "{error}");
        let broken =
            ["-----BEGIN PRIVATE KEY\nhunter2\n", "-----BEGIN PRIVATE KEY-----\nhunter2\n-----END PRIVATE KEY-----\n"];
        for text in broken {
            write(&other.files.key, text).unwrap();
            let error = fault(&other.files);
            assert!(error.starts_with("NEONHUB_TLS_KEY_FILE = `") && !error.contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn a_new_pair_is_taken_once_it_is_whole_and_the_old_one_stays_until_then() {
        let (pair, other) = (Issued::new(), Issued::new());
        let tls = Tls::load(&pair.files).unwrap();
        let first = Arc::clone(tls.acceptor().config());
        let stays = |tls: &Tls| Arc::ptr_eq(&first, tls.acceptor().config());
        assert!(matches!(tls.look_again(), Reload::Same));
        write(&pair.files.certificate, read(&other.files.certificate).unwrap()).unwrap();
        assert!(matches!(tls.look_again(), Reload::Refused(_)));
        assert!(matches!(tls.look_again(), Reload::Same), "a fault is told once");
        remove_file(&pair.files.key).unwrap();
        assert!(matches!(tls.look_again(), Reload::Refused(_)));
        assert!(matches!(tls.look_again(), Reload::Same), "a fault is told once");
        assert!(stays(&tls));
        write(&pair.files.key, read(&other.files.key).unwrap()).unwrap();
        assert!(matches!(tls.look_again(), Reload::Taken));
        assert!(!stays(&tls));
    }

    #[tokio::test(start_paused = true)]
    async fn the_files_are_followed() {
        let (pair, other) = (Issued::new(), Issued::new());
        let tls = Arc::new(Tls::load(&pair.files).unwrap());
        let first = Arc::clone(tls.acceptor().config());
        pair.replace_with(&other);
        let following = tokio::time::timeout(LOOK_AGAIN * 2, Arc::clone(&tls).follow_files());
        assert!(following.await.is_err(), "it goes on");
        assert!(!Arc::ptr_eq(&first, tls.acceptor().config()));
    }
}
