//! Texts with placeholders: `{hostname}-api`.
//!
//! A `{` in front of a letter begins a placeholder, which ends at the `}` that closes it; `{{` is a `{`, and the next `}}`
//! then a `}`. All other braces are themselves, so that JSON stays as it is: there, a letter never follows a brace.

use crate::message::Hint;
use crate::model::printable;

/// What there is to be filled in, for messages.
pub(super) const KNOWN: &str =
    "{hostname}, {ip}, {ip:INTERFACE}, {port}, {pid}, {env:NAME}, {started}, {version:COMMAND}";

/// What a placeholder stands for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Placeholder {
    /// The name of this machine.
    Hostname,
    /// The address at which other machines reach this one.
    Ip,
    /// The address of an interface.
    IpOf(String),
    /// The port that the service can be reached at.
    Port,
    /// The command's process id.
    Pid,
    /// A variable of the environment.
    Env(String),
    /// When the wrapper was started.
    Started,
    /// The first line that a command prints.
    Version(String),
}

/// As it is written.
impl std::fmt::Display for Placeholder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Hostname => f.write_str("{hostname}"),
            Self::Ip => f.write_str("{ip}"),
            Self::IpOf(interface) => write!(f, "{{ip:{}}}", printable(interface)),
            Self::Port => f.write_str("{port}"),
            Self::Pid => f.write_str("{pid}"),
            Self::Env(name) => write!(f, "{{env:{}}}", printable(name)),
            Self::Started => f.write_str("{started}"),
            Self::Version(command) => write!(f, "{{version:{}}}", printable(command)),
        }
    }
}

/// Why a text is no template.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum TemplateError {
    #[error("`{{{}}}` is no placeholder", printable(.0))]
    Unknown(String),
    #[error("`{{{0}}}` lacks what it is of: {{{0}:{1}}}")]
    Incomplete(&'static str, &'static str),
    #[error("`{{{0}}}` takes nothing behind a colon")]
    Overdone(&'static str),
    #[error("`{}` has no `}}` at its end", printable(.0))]
    Open(String),
}

impl Hint for TemplateError {
    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Unknown(name) if std::env::var_os(name).is_some() => {
                format!("{{env:{name}}} is the variable; write {{{{ for a brace")
            }
            Self::Unknown(_) | Self::Open(_) => format!("there are {KNOWN}; write {{{{ for a brace"),
            Self::Incomplete(..) | Self::Overdone(_) => format!("there are {KNOWN}"),
        })
    }
}

/// A text, read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Template(Vec<Part>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(String),
    Blank(Placeholder),
}

impl Template {
    /// # Errors
    /// When there is a placeholder in it that there is not, or that does not end.
    pub(super) fn parse(text: &str) -> Result<Self, TemplateError> {
        let mut template = Self::default();
        // How many `{{` are still to be closed.
        let mut doubled = 0_usize;
        let mut rest = text;
        while let Some(at) = rest.find(['{', '}']) {
            template.push(&rest[..at]);
            rest = &rest[at..];
            let mut next = rest[1..].chars();
            let step = match (rest.starts_with('{'), next.next()) {
                (true, Some('{')) => {
                    doubled += 1;
                    template.push("{");
                    2
                }
                (true, Some(letter)) if letter.is_ascii_alphabetic() => {
                    let length = length(rest).ok_or_else(|| TemplateError::Open(rest.to_owned()))?;
                    template.0.push(Part::Blank(placeholder(&rest[1..length - 1])?));
                    length
                }
                (false, Some('}')) if doubled > 0 => {
                    doubled -= 1;
                    template.push("}");
                    2
                }
                _ => {
                    template.push(&rest[..1]);
                    1
                }
            };
            rest = &rest[step..];
        }
        template.push(rest);
        Ok(template)
    }

    fn push(&mut self, more: &str) {
        match self.0.last_mut() {
            _ if more.is_empty() => {}
            Some(Part::Text(text)) => text.push_str(more),
            _ => self.0.push(Part::Text(more.to_owned())),
        }
    }

    /// The same with what is known filled in.
    ///
    /// # Errors
    /// Those of `value`, which returns nothing for what is not known yet.
    pub(super) fn filled<E>(
        &self,
        mut value: impl FnMut(&Placeholder) -> Result<Option<String>, E>,
    ) -> Result<Self, E> {
        let mut filled = Self::default();
        for part in &self.0 {
            match part {
                Part::Text(text) => filled.push(text),
                Part::Blank(placeholder) => match value(placeholder)? {
                    Some(text) => filled.push(&text),
                    None => filled.0.push(part.clone()),
                },
            }
        }
        Ok(filled)
    }

    /// Whether this is still to be filled in.
    pub(super) fn has(&self, placeholder: &Placeholder) -> bool {
        self.0.iter().any(|part| matches!(part, Part::Blank(blank) if blank == placeholder))
    }

    /// The text, with the values of what is still to be filled in.
    pub(super) fn text(&self, value: impl Fn(&Placeholder) -> String) -> String {
        let text = |part: &Part| match part {
            Part::Text(text) => text.clone(),
            Part::Blank(placeholder) => value(placeholder),
        };
        self.0.iter().map(text).collect()
    }
}

/// How long the placeholder at the front of `text` is: a command in it may have braces of its own.
fn length(text: &str) -> Option<usize> {
    let mut depth = 0_usize;
    for (at, brace) in text.match_indices(['{', '}']) {
        depth = if brace == "{" { depth + 1 } else { depth - 1 };
        if depth == 0 {
            return Some(at + 1);
        }
    }
    None
}

fn placeholder(inner: &str) -> Result<Placeholder, TemplateError> {
    let (name, of) = inner.split_once(':').map_or((inner, None), |(name, of)| (name, Some(of)));
    let of = of.map(str::trim);
    let alone = |name, placeholder| of.map_or(Ok(placeholder), |_| Err(TemplateError::Overdone(name)));
    let named = |name, what| {
        let of = of.filter(|of| !of.is_empty()).map(str::to_owned);
        of.ok_or(TemplateError::Incomplete(name, what))
    };
    match name {
        "hostname" => alone("hostname", Placeholder::Hostname),
        "ip" if of.is_none() => Ok(Placeholder::Ip),
        "ip" => named("ip", "INTERFACE").map(Placeholder::IpOf),
        "port" => alone("port", Placeholder::Port),
        "pid" => alone("pid", Placeholder::Pid),
        "env" => named("env", "NAME").map(Placeholder::Env),
        "started" => alone("started", Placeholder::Started),
        "version" => named("version", "COMMAND").map(Placeholder::Version),
        _ => Err(TemplateError::Unknown(name.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn shown(text: &str) -> String {
        Template::parse(text).unwrap().text(|placeholder| format!("<{placeholder:?}>"))
    }

    #[test]
    fn placeholders_are_told_from_braces() {
        for (text, expected) in [
            ("{hostname}-api", "<Hostname>-api"),
            ("{ip}:{port}", "<Ip>:<Port>"),
            ("{ip:eth0.1}", "<IpOf(\"eth0.1\")>"),
            ("{pid}{started}", "<Pid><Started>"),
            ("{env: HOME }", "<Env(\"HOME\")>"),
            ("{version:a | awk '{print $2}'}!", "<Version(\"a | awk '{print $2}'\")>!"),
            ("{{hostname}}", "{hostname}"),
            ("{{hostname}", "{hostname}"),
            ("{{{hostname}}}", "{<Hostname>}"),
            ("a}b", "a}b"),
            ("a}}b", "a}}b"),
            ("{", "{"),
            ("{ab{{", ""),
            (r#"{"a":{"b":[{}]}}"#, r#"{"a":{"b":[{}]}}"#),
            ("{ \"a\": {\"b\": 1}}", "{ \"a\": {\"b\": 1}}"),
            ("{1..3} {_} {:} {ä}", "{1..3} {_} {:} {ä}"),
        ] {
            if expected.is_empty() {
                assert!(Template::parse(text).is_err(), "{text}");
            } else {
                assert_eq!(shown(text), expected, "{text}");
            }
        }
    }

    #[test]
    fn what_is_no_placeholder_is_told() {
        for (text, expected) in [
            ("{hostnam}", "`{hostnam}` is no placeholder"),
            ("{Hostname}", "`{Hostname}` is no placeholder"),
            ("${ZONE}", "`{ZONE}` is no placeholder"),
            ("{hostname", "`{hostname` has no `}` at its end"),
            ("{version:{}", "`{version:{}` has no `}` at its end"),
            ("{env}", "`{env}` lacks what it is of: {env:NAME}"),
            ("{ip:}", "`{ip}` lacks what it is of: {ip:INTERFACE}"),
            ("{pid:1}", "`{pid}` takes nothing behind a colon"),
        ] {
            let error = Template::parse(text).unwrap_err();
            assert_eq!(error.to_string(), expected);
            assert!(error.hint().unwrap().contains("{hostname}"), "{error}");
        }
    }

    /// JSON without texts that have braces in them.
    fn json() -> impl Strategy<Value = serde_json::Value> {
        let leaf = prop_oneof![
            any::<bool>().prop_map(serde_json::Value::from),
            any::<i64>().prop_map(serde_json::Value::from),
            "[^{}]*".prop_map(serde_json::Value::from),
        ];
        leaf.prop_recursive(4, 32, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(serde_json::Value::from),
                prop::collection::btree_map("[^{}]*", inner, 0..4)
                    .prop_map(|map| serde_json::Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn any_text_is_a_template_or_an_error(text in r#"([{}:a-z0-9"]|hostname|env:|.)*"#) {
            if let Ok(template) = Template::parse(&text) {
                let _ = template.text(ToString::to_string);
            }
        }

        #[test]
        fn a_text_without_braces_is_itself(text in "[^{}]*") {
            let template = Template::parse(&text).unwrap();
            prop_assert_eq!(template.text(|_| "filled".to_owned()), text);
        }

        #[test]
        fn json_is_itself(value in json()) {
            prop_assert_eq!(shown(&value.to_string()), value.to_string());
        }

        #[test]
        fn what_has_its_braces_doubled_has_them_once(text in "[^}]*") {
            prop_assert_eq!(shown(&text.replace('{', "{{")), text);
        }
    }
}
