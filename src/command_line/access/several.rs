//! One registry, or several: which were named, and how to get in at each by itself.

use clap::ArgMatches;

use super::{AccessArguments, AccessError, Said, Target};
#[cfg(feature = "server")]
use super::{Origins, embedded};
use crate::command_line::origins::Sources;
#[cfg(feature = "server")]
use crate::registry::Access;
use crate::registry::RegistryUrl;

impl AccessArguments {
    /// The one registry that was named, or else the one that is used where none was.
    ///
    /// # Errors
    /// When several were named, when what was said is not enough to get in, or when one of the files cannot be used.
    #[cfg(feature = "cli")]
    pub(crate) fn target(self, matches: &ArgMatches) -> Result<Target, AccessError> {
        let sources = Sources(matches);
        let mut named = self.named(sources);
        let count = named.len();
        match named.pop() {
            Some(Said { origin, .. }) if count > 1 => Err(AccessError::Several { origin, count }),
            url => {
                self.check_files()?;
                self.at(url, sources)
            }
        }
    }

    /// [`Self::target`] for a program that serves the registry: where clients go by default is not what it serves.
    ///
    /// # Errors
    /// As there.
    #[cfg(feature = "server")]
    pub(crate) fn served(self, matches: &ArgMatches) -> Result<Target, AccessError> {
        if !self.registry.is_empty() {
            return self.target(matches);
        }
        let (registry, access) = (embedded()?, Access::default());
        let origins = Origins::without_login(Origins::DEFAULT);
        Ok(Target { registry, access, origins, secret_variables: Vec::new(), warnings: Vec::new() })
    }

    /// The registries that were named, or else the one that is used where none was.
    ///
    /// # Errors
    /// When one was named twice, when what was said is not enough to get in, or when one of the files cannot be used.
    pub(crate) fn targets(self, matches: &ArgMatches) -> Result<Vec<Target>, AccessError> {
        let sources = Sources(matches);
        self.check_files()?;
        let mut named = self.named(sources);
        if named.len() < 2 {
            return Ok(vec![self.at(named.pop(), sources)?]);
        }
        let for_those_without_users = self.for_those_without_users(&named);
        let mut targets: Vec<Target> = Vec::with_capacity(named.len());
        for url in named {
            let origin = url.origin.clone();
            let knows_no_users = url.value.parse().is_ok_and(|url: RegistryUrl| !url.asks().for_a_user());
            let arguments = if knows_no_users { &for_those_without_users } else { &self };
            let target = arguments.clone().one_of_several(url, sources)?;
            if targets.iter().any(|known| place(known) == place(&target)) {
                return Err(AccessError::Twice { origin, registry: target.registry.to_string() });
            }
            targets.push(target);
        }
        let logs_in_there =
            |target: &Target| target.access.credentials.is_some() && target.access.auth_url.is_some();
        if targets.iter().any(logs_in_there) {
            // Who has a login of its own is a stranger there.
            let strangers = targets.iter_mut().filter(|target| target.registry.has_secret());
            strangers.for_each(|target| target.access.auth_url = None);
        }
        Ok(targets)
    }

    /// What holds for registries that know no users: where another one has users, the key is theirs, and none of its
    /// business.
    fn for_those_without_users(&self, named: &[Said]) -> Self {
        if named.iter().any(|said| said.value.parse().is_ok_and(|url| takes_a_users_key(&url))) {
            Self { api_key: None, api_key_file: None, ..self.clone() }
        } else {
            self.clone()
        }
    }

    fn one_of_several(self, url: Said, sources: Sources<'_>) -> Result<Target, AccessError> {
        let registry = url.value.parse().map(|url: RegistryUrl| url.to_string()).unwrap_or_default();
        self.at(Some(url), sources).map_err(|error| match error {
            AccessError::NoKey | AccessError::NoUsername => {
                AccessError::Login { registry, source: Box::new(error) }
            }
            error => error,
        })
    }

    /// What the command line names, or else the variable, in which blanks separate.
    fn named(&self, sources: Sources<'_>) -> Vec<Said> {
        let origin = sources.origin("registry");
        let urls: Vec<&str> = if sources.is_typed("registry") {
            self.registry.iter().map(String::as_str).collect()
        } else {
            self.registry.iter().flat_map(|urls| urls.split_whitespace()).collect()
        };
        urls.into_iter().map(|url| Said { value: url.to_owned(), origin: origin.clone() }).collect()
    }
}

/// Whether a user's key may be said elsewhere than in its URL.
fn takes_a_users_key(registry: &RegistryUrl) -> bool {
    registry.asks().for_a_user() && !registry.has_secret()
}

/// Where an entry goes, however that was written.
fn place(target: &Target) -> String {
    match &target.registry {
        #[cfg(feature = "sqlite")]
        RegistryUrl::Sqlite(path) => {
            let directory = path.parent().and_then(|directory| directory.canonicalize().ok());
            let found = directory.zip(path.file_name()).map(|(directory, name)| directory.join(name));
            found.unwrap_or_else(|| path.clone()).to_string_lossy().into_owned()
        }
        // Its users have nothing in common.
        #[cfg(feature = "http")]
        RegistryUrl::Rackspace(url) => {
            let login = url.credentials().or(target.access.credentials.as_ref());
            format!("{} {}", url.as_str(), login.map(|login| &*login.username).unwrap_or_default())
        }
        #[cfg(any(feature = "http", feature = "zookeeper"))]
        registry => registry.to_string(),
    }
}
