//! Who signs a package: nobody, or a command of the site's own. anmin holds no key and knows no authority.
//!
//! The command gets the bytes of the `EBDB` file on its standard input and writes the signature (SM2 with SM3 over these bytes) in
//! base64 on its standard output. It is started as it is written, never through a shell, with nothing of anmin's surroundings but
//! `PATH`; what it does not finish in time is ended.

use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anmin_sensors::document::Reader;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::Command;

use super::super::excerpt;

/// One attempt of the courier has 15 s, of which the exchange with the platform may take 10.
const RANGE: std::ops::RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_secs(4);
/// Bytes of what a command writes; a signature has about a hundred.
const SAID_MOST: u64 = 8 << 10;

/// `sign_command`, `sign_timeout` and `cert_sn`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signer {
    program: PathBuf,
    arguments: Vec<String>,
    within: Duration,
    /// Serial number of the certificate, for the receiver.
    pub certificate: String,
}

impl Signer {
    /// `None` where nobody signs, too; then there may be a fault.
    pub fn read(r: &Reader<'_>) -> Option<Self> {
        let command: Option<Vec<String>> = r.optional("sign_command");
        let within = r.or("sign_timeout", Duration::from_secs(3));
        let certificate: Option<String> = r.optional("cert_sn");
        let Some(command) = command else {
            for key in ["sign_timeout", "cert_sn"].into_iter().filter(|key| r.has(key)) {
                r.fault(key, format!("`{key}` belongs to `sign_command`, which is not there"), None);
            }
            return None;
        };
        let mut words = command.into_iter();
        let program = words.next().map(PathBuf::from).filter(|program| program.is_absolute());
        if program.is_none() {
            let hint =
                "such as [\"/usr/local/bin/eb-sign\", \"--key\", \"1\"]; it is started without a shell".to_owned();
            r.fault("sign_command", "`sign_command` must begin with the whole path of a program", Some(hint));
        }
        if !RANGE.contains(&within) {
            r.fault("sign_timeout", "`sign_timeout` must lie between 100 milliseconds and 4 seconds", None);
        }
        let certificate = certificate.filter(|number| {
            let plain = (1..=64).contains(&number.len()) && number.bytes().all(|b| b.is_ascii_alphanumeric());
            if !plain {
                r.fault("cert_sn", format!("`cert_sn` is {number:?}, expected 1 to 64 letters and digits"), None);
            }
            plain
        });
        if certificate.is_none() && !r.has("cert_sn") {
            let hint = "the serial number of the certificate whose key signs, as the platform knows it".to_owned();
            r.fault("cert_sn", "`sign_command` needs `cert_sn`", Some(hint));
        }
        Some(Self { program: program?, arguments: words.collect(), within, certificate: certificate? })
    }

    /// Why the command cannot be started, as far as its file tells.
    pub fn trouble(&self) -> Option<String> {
        use std::os::unix::fs::PermissionsExt as _;
        let shown = self.program.display();
        match std::fs::metadata(&self.program) {
            Err(error) => Some(format!("{shown} cannot be started: {error}")),
            Ok(meta) if !meta.is_file() => Some(format!("{shown} is no file")),
            Ok(meta) if meta.permissions().mode() & 0o111 == 0 => Some(format!("{shown} is no program")),
            Ok(_) => None,
        }
    }

    /// The signature of these bytes in base64, on one line. Safe to drop: the command ends with it.
    pub async fn sign(&self, bytes: &[u8]) -> Result<String, String> {
        let shown = self.program.display();
        let signed = tokio::time::timeout(self.within, self.run(bytes)).await;
        let (status, said, complaint) = match signed {
            Ok(Ok(found)) => found,
            Ok(Err(error)) => return Err(format!("{shown} cannot be run: {error}")),
            Err(_) => return Err(format!("{shown} has not signed within {:?}", self.within)),
        };
        if !status.success() {
            let complaint = excerpt(String::from_utf8_lossy(&complaint).trim());
            return Err(format!("{shown} has not signed, {status}: {complaint}"));
        }
        let text: String = String::from_utf8_lossy(&said).split_whitespace().collect();
        match STANDARD.decode(&text) {
            Ok(signature) if !signature.is_empty() && (said.len() as u64) < SAID_MOST => Ok(text),
            _ => Err(format!("{shown} has not written a signature in base64")),
        }
    }

    async fn run(&self, bytes: &[u8]) -> std::io::Result<(ExitStatus, Vec<u8>, Vec<u8>)> {
        let mut child = Command::new(&self.program)
            .args(&self.arguments)
            .env_clear()
            .envs(std::env::var_os("PATH").map(|path| ("PATH", path)))
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let (mut input, output, errors) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let feed = async {
            if let Some(input) = &mut input {
                // One that does not read to the end has its reasons, and says by its end whether it has signed.
                let _ = input.write_all(bytes).await;
            }
            drop(input);
        };
        let ((), said, complaint) = tokio::join!(feed, all_of(output), all_of(errors));
        Ok((child.wait().await?, said?, complaint?))
    }
}

/// What is written there, cut; the rest is read too, so that nobody waits.
async fn all_of(pipe: Option<impl AsyncRead + Unpin>) -> std::io::Result<Vec<u8>> {
    let mut said = Vec::new();
    let Some(mut pipe) = pipe else { return Ok(said) };
    (&mut pipe).take(SAID_MOST).read_to_end(&mut said).await?;
    tokio::io::copy(&mut pipe, &mut tokio::io::sink()).await?;
    Ok(said)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signer(words: &[&str], within: Duration) -> Signer {
        Signer {
            program: words[0].into(),
            arguments: words[1..].iter().map(|word| (*word).to_owned()).collect(),
            within,
            certificate: "1".to_owned(),
        }
    }

    /// Goal: what a command does or fails to do is told by its reason, and a word with a meaning for a shell has none.
    #[tokio::test]
    async fn a_command_signs_the_bytes_that_it_reads_and_every_failure_is_named() {
        let second = Duration::from_secs(4);
        let (large, sh) = (vec![b'x'; 1 << 20], "/bin/sh");
        for (words, bytes, within, wanted) in [
            (&["/usr/bin/base64"][..], &b"abc"[..], second, Ok("YWJj")),
            (&[sh, "-c", "cat >/dev/null; printf 'QUJD\\nREVG\\n'"], &large, second, Ok("QUJDREVG")),
            (&[sh, "-c", "printf QUJD"], &large, second, Ok("QUJD")),
            (&["/bin/echo", "QUJD;", "$HOME"], b"abc", second, Err("has not written a signature in base64")),
            (&["/bin/cat"], b"", second, Err("has not written a signature in base64")),
            (&["/bin/cat"], &large, second, Err("has not written a signature in base64")),
            (&[sh, "-c", "echo no key >&2; exit 3"], b"abc", second, Err("exit status: 3: no key")),
            (&[sh, "-c", "printf %s \"$HOME\" >&2; exit 1"], b"abc", second, Err("exit status: 1: \u{0}")),
            (&["/bin/sleep", "60"], b"abc", Duration::from_millis(200), Err("has not signed within 200ms")),
            (&["/nowhere/eb-sign"], b"abc", second, Err("/nowhere/eb-sign cannot be run")),
        ] {
            let found = signer(words, within).sign(bytes).await;
            match (&found, wanted) {
                (Ok(signature), Ok(wanted)) => assert_eq!(signature, wanted, "{words:?}"),
                // Nothing of anmin's surroundings is said.
                (Err(why), Err("exit status: 1: \u{0}")) => assert!(why.ends_with("exit status: 1: "), "{why}"),
                (Err(why), Err(wanted)) => assert!(why.contains(wanted), "{words:?}: {why}"),
                other => panic!("{words:?}: {other:?}"),
            }
        }
    }

    #[test]
    fn a_program_that_cannot_be_started_is_known_before_it_is_needed() {
        for (program, wanted) in [
            ("/bin/sh", None),
            ("/nowhere/eb-sign", Some("cannot be started")),
            ("/usr", Some("is no file")),
            ("/etc/passwd", Some("is no program")),
        ] {
            let found = signer(&[program], Duration::from_secs(1)).trouble();
            assert!(found.is_some() == wanted.is_some(), "{program}: {found:?}");
            assert!(found.unwrap_or_default().contains(wanted.unwrap_or_default()), "{program}");
        }
    }
}
