//! HTTP clients of the commands: plain, or over TLS with whoever this machine trusts and with NeonHub itself, whose
//! certificate may be for another name than the one that a command reaches it by.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::{self, PemObject as _};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, Error, SignatureScheme};

const CONNECT_PATIENCE: Duration = Duration::from_secs(5);

/// A client for servers named on the command line or in the settings. No proxy: that would be read from the environment. `own`
/// is the file of NeonHub's own certificate: whoever shows that one is trusted under any name.
///
/// # Errors
/// The file cannot be read or is no PEM, or the system's resolver cannot be set up.
pub fn http_client(own: Option<&Path>) -> anyhow::Result<reqwest::Client> {
    let builder = reqwest::Client::builder().no_proxy().connect_timeout(CONNECT_PATIENCE);
    builder.tls_backend_preconfigured(tls(own)?).build().context("an HTTP client")
}

/// The same, for threads that may wait. Made on a thread of its own, as one that blocks must be.
///
/// # Errors
/// The system's resolver cannot be set up.
pub fn blocking_http_client(timeout: Duration) -> anyhow::Result<reqwest::blocking::Client> {
    let tls = tls(None)?;
    let builder = reqwest::blocking::Client::builder().no_proxy().timeout(timeout).tls_backend_preconfigured(tls);
    let made = std::thread::spawn(|| builder.build());
    Ok(made.join().map_err(|_| anyhow::anyhow!("no HTTP client that blocks"))??)
}

fn tls(own: Option<&Path>) -> anyhow::Result<ClientConfig> {
    let provider = Arc::new(ring::default_provider());
    let own = match own {
        // The server's certificate is the first.
        Some(file) => Some(CertificateDer::from_pem_file(file).map_err(|error| {
            // Without the text of a PEM error, which may quote the file.
            let why = if let pem::Error::Io(error) = error { error.to_string() } else { "it is no PEM".to_owned() };
            anyhow::anyhow!("NEONHUB_TLS_CERTIFICATE_FILE = `{}` cannot be used: {why}", file.display())
        })?),
        None => None,
    };
    // A machine without certificates of authorities trusts nobody else.
    let trusted = rustls_platform_verifier::Verifier::new(Arc::clone(&provider)).ok();
    let verifier = Arc::new(Trust { own, trusted, provider: Arc::clone(&provider) });
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    Ok(config.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth())
}

#[derive(Debug)]
struct Trust {
    own: Option<CertificateDer<'static>>,
    trusted: Option<rustls_platform_verifier::Verifier>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Trust {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        // That it has the key, too, the handshake's signature shows.
        if self.own.as_ref().is_some_and(|own| own == end_entity) {
            return Ok(ServerCertVerified::assertion());
        }
        match &self.trusted {
            Some(trusted) => trusted.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now),
            None => Err(Error::InvalidCertificate(CertificateError::UnknownIssuer)),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
