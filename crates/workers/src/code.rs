//! The pairing code: 120 random bits that two machines share, and the files that keep them.
//!
//! A worker has one code, in `worker-code`; a machine that uses workers has those of all of them, one a line,
//! in `worker-codes`. Both files are readable by their owner alone. So many bits cannot be guessed, with or
//! without a record of the connection, so that no key exchange by password is needed.

use ring::rand::{SecureRandom as _, SystemRandom};
use ring::{digest, hmac};
use std::fmt;
use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use crate::WorkerError;

/// Crockford's alphabet: no letter looks like a digit.
const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
/// Letters of a code, five bits each.
const LETTERS: usize = 24;
/// Letters of a group.
const GROUP: usize = 4;

/// A pairing code.
#[derive(Clone, PartialEq, Eq)]
pub struct Code([u8; LETTERS]);

/// Who proves: an answer to one side is no answer of the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The machine that connects.
    Client,
    /// The machine that offers its memory.
    Worker,
}

impl Role {
    const fn label(self) -> &'static [u8] {
        match self {
            Self::Client => b"hypura worker client 1",
            Self::Worker => b"hypura worker server 1",
        }
    }
}

impl Code {
    /// A new one.
    ///
    /// # Errors
    /// When the system has no random numbers.
    pub fn random() -> Result<Self, WorkerError> {
        let mut bytes = [0; LETTERS];
        let random = SystemRandom::new().fill(&mut bytes);
        random.map_err(|_| WorkerError::Crypto("no random numbers".to_owned()))?;
        // 256 is a multiple of 32: each letter is as likely as any other.
        Ok(Self(bytes.map(|byte| ALPHABET[usize::from(byte % 32)])))
    }

    /// A code as people write it: in any case, with or without what is between the groups.
    ///
    /// # Errors
    /// [`WorkerError::Code`].
    pub fn parse(text: &str) -> Result<Self, WorkerError> {
        let plain = |byte: u8| match byte.to_ascii_lowercase() {
            b'o' => b'0',
            b'i' | b'l' => b'1',
            byte => byte,
        };
        let letters: Vec<u8> =
            text.bytes().filter(|byte| !matches!(byte, b'-' | b' ' | b'\n' | b'\r')).map(plain).collect();
        let letters: [u8; LETTERS] = letters.try_into().map_err(|_| WorkerError::Code)?;
        let known = letters.iter().all(|letter| ALPHABET.contains(letter));
        if known { Ok(Self(letters)) } else { Err(WorkerError::Code) }
    }

    /// What names the code without telling it.
    #[must_use]
    pub fn id(&self) -> String {
        let mut context = digest::Context::new(&digest::SHA256);
        context.update(b"hypura worker code 1");
        context.update(&self.0);
        context.finish().as_ref().iter().take(4).map(|byte| format!("{byte:02x}")).collect()
    }

    /// What proves that a side of a connection knows the code. `binding` is of this connection alone.
    #[must_use]
    pub fn proof(&self, role: Role, binding: &[u8]) -> Vec<u8> {
        self.sign(role, binding).as_ref().to_vec()
    }

    /// Whether that was proven; takes as long whatever is wrong.
    #[must_use]
    pub fn proves(&self, role: Role, binding: &[u8], proof: &[u8]) -> bool {
        let key = hmac::Key::new(hmac::HMAC_SHA256, &self.0);
        hmac::verify(&key, &[role.label(), binding].concat(), proof).is_ok()
    }

    fn sign(&self, role: Role, binding: &[u8]) -> hmac::Tag {
        hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &self.0), &[role.label(), binding].concat())
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, group) in self.0.chunks(GROUP).enumerate() {
            write!(f, "{}{}", if at == 0 { "" } else { "-" }, String::from_utf8_lossy(group))?;
        }
        Ok(())
    }
}

impl fmt::Debug for Code {
    /// Never the code itself: it would land in a log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Code({})", self.id())
    }
}

/// The folder of the files.
#[derive(Clone, Debug)]
pub struct CodeFolder(PathBuf);

impl CodeFolder {
    /// As the environment says: `$XDG_CONFIG_HOME/hypura`, or where that is by default.
    #[must_use]
    pub fn of_environment() -> Option<Self> {
        let named = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
        let by_default = if cfg!(target_os = "macos") { "Library/Application Support" } else { ".config" };
        let base = named("XDG_CONFIG_HOME").or_else(|| named("HOME").map(|home| home.join(by_default)));
        base.map(|base| Self(base.join("hypura")))
    }

    /// That folder.
    #[must_use]
    pub fn at(path: &Path) -> Self {
        Self(path.to_owned())
    }

    /// The code of this machine as a worker, made at first.
    ///
    /// # Errors
    /// [`WorkerError::File`]; also where others may read the file.
    pub fn own(&self) -> Result<Code, WorkerError> {
        let path = self.0.join("worker-code");
        if let Some(text) = read_private(&path)? {
            return Code::parse(&text);
        }
        let code = Code::random()?;
        self.write("worker-code", &format!("{code}\n"))?;
        Ok(code)
    }

    /// The codes of the workers that this machine is paired with.
    ///
    /// # Errors
    /// As [`Self::own`].
    pub fn known(&self) -> Result<Vec<Code>, WorkerError> {
        let text = read_private(&self.0.join("worker-codes"))?.unwrap_or_default();
        text.lines().filter(|line| !line.trim().is_empty()).map(Code::parse).collect()
    }

    /// Adds the code of a worker.
    ///
    /// # Errors
    /// As [`Self::own`].
    pub fn add(&self, code: &Code) -> Result<(), WorkerError> {
        let mut codes = self.known()?;
        if !codes.contains(code) {
            codes.push(code.clone());
        }
        let text: String = codes.iter().map(|code| format!("{code}\n")).collect();
        self.write("worker-codes", &text)
    }

    /// Writes a file as a whole or not at all, for its owner alone.
    fn write(&self, name: &str, text: &str) -> Result<(), WorkerError> {
        let path = self.0.join(name);
        let failed = || WorkerError::file(format!("{} cannot be written", path.display()));
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.0).map_err(failed())?;
        let new = self.0.join(format!(".{name}.{}", std::process::id()));
        let written = fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&new)
            .and_then(|mut file| file.write_all(text.as_bytes()).and_then(|()| file.sync_all()))
            .and_then(|()| fs::rename(&new, &path));
        written.map_err(failed())
    }
}

/// A file that its owner alone may read; `None` where there is none.
fn read_private(path: &Path) -> Result<Option<String>, WorkerError> {
    let failed = || WorkerError::file(format!("{} cannot be read", path.display()));
    let mode = match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        found => found.map_err(failed())?.permissions().mode(),
    };
    if mode & 0o077 != 0 {
        let why = io::Error::other("others may read it, so the code is no secret: chmod 600, or delete it");
        return Err(failed()(why));
    }
    fs::read_to_string(path).map(Some).map_err(failed())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_is_read_as_people_write_it() {
        let code = Code::random().unwrap();
        let text = code.to_string();
        assert_eq!(text.len(), 29, "{text}");
        assert_eq!(Code::parse(&text.to_uppercase().replace('-', " ")).unwrap(), code);
        assert_eq!(Code::parse(&text.replace('0', "O").replace('1', "l")).unwrap(), code);
        assert!(Code::parse(&text[1..]).is_err() && Code::parse("").is_err());
        assert_ne!(Code::random().unwrap(), code);
        assert!(!format!("{code:?}").contains(&text[..9]), "a log tells nothing");
    }

    #[test]
    fn a_proof_is_of_one_role_one_connection_and_one_code() {
        let (code, other) = (Code::random().unwrap(), Code::random().unwrap());
        let proof = code.proof(Role::Client, b"one");
        assert!(code.proves(Role::Client, b"one", &proof));
        assert!(!code.proves(Role::Worker, b"one", &proof), "not reflected");
        assert!(!code.proves(Role::Client, b"two", &proof), "not relayed");
        assert!(!other.proves(Role::Client, b"one", &proof));
        assert!(!code.proves(Role::Client, b"one", &proof[..31]));
        assert!(!code.proves(Role::Client, b"one", b""));
    }

    #[test]
    fn codes_are_kept_for_their_owner_alone() {
        let folder = tempfile::tempdir().unwrap();
        let codes = CodeFolder::at(&folder.path().join("hypura"));
        let own = codes.own().unwrap();
        assert_eq!(codes.own().unwrap(), own, "made once");
        assert_eq!(codes.known().unwrap(), []);
        (0..2).for_each(|_| codes.add(&own).unwrap());
        assert_eq!(codes.known().unwrap(), [own]);
        let path = folder.path().join("hypura/worker-code");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        let error = codes.own().unwrap_err().to_string();
        assert!(error.contains("chmod 600"), "{error}");
    }
}
