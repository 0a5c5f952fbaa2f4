//! `~/.raxrc`, the file of the command-line clients of old.

use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use configparser::ini::Ini;

use crate::message::Hint;
use crate::model::printable;
use crate::registry::Secret;

/// What such a file says.
#[derive(Debug, Default)]
pub(super) struct Raxrc {
    path: PathBuf,
    pub(super) username: Option<String>,
    pub(super) api_key: Option<Secret>,
    pub(super) api_url: Option<String>,
    pub(super) auth_url: Option<String>,
    is_world_readable: bool,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum RaxrcError {
    #[error("cannot read `{}`", .path.display())]
    Unreadable {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("`{}` is no INI file: {fault}", .path.display())]
    Malformed { path: PathBuf, fault: String },
    #[error("`{}` asks not to verify certificates", .0.display())]
    Unverified(PathBuf),
}

impl Hint for RaxrcError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Unreadable { .. } => Some("see RAXSR_RAXRC".to_owned()),
            Self::Malformed { .. } => None,
            Self::Unverified(_) => Some(
                "take `verify` out of [ssl], and name the authority's certificate with --ca-cert".to_owned(),
            ),
        }
    }
}

impl Raxrc {
    /// The file that `RAXSR_RAXRC` names, or else `~/.raxrc` where there is one that we may read.
    pub(super) fn read() -> Result<Self, RaxrcError> {
        let named = std::env::var_os("RAXSR_RAXRC").filter(|path| !path.is_empty()).map(PathBuf::from);
        if let Some(path) = named {
            return Self::read_file(&path);
        }
        let home = std::env::var_os("HOME").filter(|home| !home.is_empty()).map(PathBuf::from);
        match home.map(|home| Self::read_file(&home.join(".raxrc"))) {
            // Programs of other users are often started with somebody else's HOME.
            Some(Err(RaxrcError::Unreadable { source, .. })) if is_nobodys(&source) => Ok(Self::default()),
            Some(outcome) => outcome,
            None => Ok(Self::default()),
        }
    }

    fn read_file(path: &Path) -> Result<Self, RaxrcError> {
        let unreadable = |source| RaxrcError::Unreadable { path: path.to_owned(), source };
        let mut file = std::fs::File::open(path).map_err(unreadable)?;
        let mut text = String::new();
        file.read_to_string(&mut text).map_err(unreadable)?;
        let mode = file.metadata().map_err(unreadable)?.mode();
        Ok(Self { is_world_readable: mode & 0o004 != 0, ..Self::parse(path, text)? })
    }

    fn parse(path: &Path, text: String) -> Result<Self, RaxrcError> {
        let malformed = |fault| RaxrcError::Malformed { path: path.to_owned(), fault };
        let mut ini = Ini::new();
        // A key may have a `#` in it.
        ini.set_inline_comment_symbols(Some(&[]));
        let sections = ini.read(text).map_err(|fault| malformed(printable(&fault)))?;
        if let Some((section, _)) = sections.iter().find(|(_, keys)| keys.values().any(Option::is_none)) {
            // The line itself may be a secret.
            return Err(malformed(format!("a line in [{}] has no `=`", printable(section))));
        }
        let value = |section: &str, key: &str| ini.get(section, key).filter(|value| !value.is_empty());
        let is_off = |value: String| matches!(&*value.to_lowercase(), "false" | "0" | "no" | "off");
        if value("ssl", "verify").is_some_and(is_off) {
            return Err(RaxrcError::Unverified(path.to_owned()));
        }
        Ok(Self {
            path: path.to_owned(),
            username: value("credentials", "username"),
            api_key: value("credentials", "api_key").map(Secret::new),
            api_url: value("api", "url"),
            auth_url: value("auth_api", "url"),
            is_world_readable: false,
        })
    }

    /// The file, for messages.
    pub(super) fn shown(&self) -> String {
        format!("`{}`", printable(&self.path.to_string_lossy()))
    }

    /// Who may read it that should not.
    pub(super) fn warning(&self) -> Option<String> {
        let is_exposed = self.is_world_readable && self.api_key.is_some();
        is_exposed.then(|| {
            format!("every user of this machine can read the key in {}: chmod it to 600", self.shown())
        })
    }
}

fn is_nobodys(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::PermissionDenied | ErrorKind::NotADirectory)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::report;

    fn parse(text: &str) -> Result<Raxrc, RaxrcError> {
        Raxrc::parse(Path::new("/home/me/.raxrc"), text.to_owned())
    }

    #[test]
    fn the_sections_of_old_are_read() {
        let raxrc = parse(
            "# mine\n[credentials]\nusername = me\napi_key=se#sa;me\n[api]\nurl = https://host/v1.0\n\
             [auth_api]\nurl: https://id/v2.0\n[ssl]\nverify = true\n[debug]\nx = y\n",
        )
        .unwrap();
        assert_eq!(raxrc.username.as_deref(), Some("me"));
        assert_eq!(raxrc.api_key.as_ref().map(Secret::expose), Some("se#sa;me"));
        assert_eq!(raxrc.api_url.as_deref(), Some("https://host/v1.0"));
        assert_eq!(raxrc.auth_url.as_deref(), Some("https://id/v2.0"));
        assert!(!format!("{raxrc:?}").contains("sa;me"));
        assert!(parse("").unwrap().username.is_none());
    }

    #[test]
    fn a_malformed_file_is_told_without_its_secrets() {
        for text in ["[credentials\nx = sesame", "[credentials]\napi_key sesame", "[credentials]\n= sesame"] {
            let error = parse(text).unwrap_err();
            let told = report("p", &error);
            assert!(told.contains("/home/me/.raxrc") && !told.contains("sesame"), "{told}");
        }
    }

    #[test]
    fn certificates_are_always_verified() {
        for value in ["false", "False", "0", "no", "off"] {
            let error = parse(&format!("[ssl]\nverify = {value}")).unwrap_err();
            assert!(error.hint().unwrap().contains("--ca-cert"));
        }
    }
}
