use clap::ArgMatches;
use clap::parser::ValueSource;

/// Where it was said which registry is meant, and how to get in: flags, variables and files, never what they hold.
#[cfg_attr(not(feature = "cli"), expect(dead_code, reason = "only raxsr tells"))]
pub(crate) struct Origins {
    pub(crate) registry: String,
    pub(crate) login: Login,
    pub(crate) auth_url: Option<String>,
    pub(crate) ca_certificates: Option<String>,
}

/// Where it was said who we are.
#[cfg_attr(not(feature = "cli"), expect(dead_code, reason = "only raxsr tells"))]
pub(crate) enum Login {
    /// The registry asks for none.
    NotNeeded,
    /// Nowhere.
    Unsaid,
    /// In the registry's URL.
    InUrl,
    /// A token is all there is to it, and was said here.
    #[cfg(feature = "http")]
    Token(String),
    Said {
        username: String,
        api_key: String,
    },
}

impl Origins {
    /// What is used where nothing was said.
    pub(super) const DEFAULT: &str = "default";

    /// Those of a registry that asks for no login.
    pub(super) fn without_login(registry: impl Into<String>) -> Self {
        Self { registry: registry.into(), login: Login::NotNeeded, auth_url: None, ca_certificates: None }
    }
}

/// Tells a flag from the variable that stands for it.
#[derive(Clone, Copy)]
pub(super) struct Sources<'a>(pub(super) &'a ArgMatches);

impl Sources<'_> {
    /// Whether an argument, given by its field, stands on the command line.
    pub(super) fn is_typed(self, field: &str) -> bool {
        self.0.value_source(field) == Some(ValueSource::CommandLine)
    }

    /// The flag or the variable that an argument came from.
    pub(super) fn origin(self, field: &str) -> String {
        if self.is_typed(field) {
            return format!("--{}", field.replace('_', "-"));
        }
        let variable = if field == "registry" { "url" } else { field };
        format!("SERVICE_REGISTRY_{}", variable.to_uppercase())
    }
}
