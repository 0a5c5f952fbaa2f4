//! Whole namespaces, to a file and from one: a mapping of ids to values, in YAML or JSON.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use clap::Args;
use yaml_serde::Value;

use super::Error;
use super::configuration::{page, read};
use super::output::{Format, Output, json, print, yaml};
use super::part::Part;
use crate::model::{ConfigurationId, ConfigurationValue, Namespace, escaped, printable};
use crate::registry::ConfigurationStore;

#[derive(Debug, Args)]
pub(super) struct Export {
    /// The namespace; without it, everything
    #[arg(value_name = "NAMESPACE")]
    namespace: Option<Namespace>,
}

#[derive(Debug, Args)]
pub(super) struct Import {
    /// The file, in YAML or JSON; `-` for standard input
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Where every value of the file has to be
    #[arg(long, value_name = "NAMESPACE")]
    namespace: Option<Namespace>,
    /// Also remove what is in the namespace and not in the file
    #[arg(long, requires = "namespace")]
    prune: bool,
    /// Show what would change, and change nothing
    #[arg(long)]
    dry_run: bool,
}

type Values = BTreeMap<ConfigurationId, String>;

pub(super) async fn export(
    export: Export,
    store: &dyn ConfigurationStore,
    output: &Output,
) -> Result<(), Error> {
    let values: BTreeMap<String, String> =
        all(store, export.namespace).await?.into_iter().map(|(id, value)| (id.into(), value)).collect();
    print(&match output.format {
        Format::Json => json(&values),
        Format::Table | Format::Yaml => yaml(&values),
        other => {
            return Err(Error::NoSuchFormat {
                format: other.name(),
                what: "an export",
                formats: "yaml, json",
            });
        }
    })?;
    Ok(())
}

pub(super) async fn import(import: Import, store: &dyn ConfigurationStore) -> Result<(), Error> {
    let wanted = parse(&import.file, &read(&import.file)?)?;
    let outside =
        |id: &&ConfigurationId| !import.namespace.as_ref().is_none_or(|namespace| namespace.contains(id));
    if let Some(id) = wanted.keys().find(outside) {
        return Err(Error::Outside { path: import.file, id: id.clone() });
    }
    let present = all(store, import.namespace.clone()).await?;
    let mut changes = changes(&present, &wanted);
    if !import.prune {
        changes.retain(|change| !matches!(change, Change::Remove { .. }));
    }
    print(&told(&changes, wanted.len()))?;
    if import.dry_run {
        return Ok(());
    }
    for change in changes {
        match change {
            Change::Set { id, new, .. } => {
                store.set(&ConfigurationValue::new(id.clone(), new).map_err(Error::Value)?).await?;
            }
            Change::Remove { id, .. } => store.remove(id).await?,
        }
    }
    Ok(())
}

/// What has to be done to one value.
enum Change<'a> {
    Set { id: &'a ConfigurationId, old: Option<&'a str>, new: &'a str },
    Remove { id: &'a ConfigurationId, old: &'a str },
}

/// What makes the one the other.
fn changes<'a>(present: &'a Values, wanted: &'a Values) -> Vec<Change<'a>> {
    let set = wanted.iter().filter_map(|(id, new)| {
        let old = present.get(id).map(String::as_str);
        (old != Some(new)).then_some(Change::Set { id, old, new })
    });
    let removed = present.iter().filter(|(id, _)| !wanted.contains_key(*id));
    set.chain(removed.map(|(id, old)| Change::Remove { id, old })).collect()
}

/// The difference, a line for each value, and a summary.
fn told(changes: &[Change<'_>], wanted: usize) -> String {
    let mut text = String::new();
    let (mut created, mut replaced, mut removed) = (0, 0, 0);
    for change in changes {
        // Writing into a string cannot fail.
        let _ = match change {
            Change::Set { id, old: None, new } => {
                created += 1;
                writeln!(text, "+ {id}: {}", escaped(new))
            }
            Change::Set { id, old: Some(old), new } => {
                replaced += 1;
                writeln!(text, "~ {id}: {} -> {}", escaped(old), escaped(new))
            }
            Change::Remove { id, old } => {
                removed += 1;
                writeln!(text, "- {id}: {}", escaped(old))
            }
        };
    }
    let unchanged = wanted - created - replaced;
    let _ = writeln!(text, "{created} created, {replaced} changed, {removed} removed, {unchanged} unchanged");
    text
}

async fn all(store: &dyn ConfigurationStore, namespace: Option<Namespace>) -> Result<Values, Error> {
    let page = page(store, namespace, &Part::whole()).await?;
    Ok(page.values.into_iter().map(|value| (value.id.clone(), value.value().to_owned())).collect())
}

/// Every value of a file, each of them legal: nothing is changed before that is known.
fn parse(path: &Path, text: &str) -> Result<Values, Error> {
    let malformed = |fault: String| Error::Import { path: path.to_owned(), fault };
    let document: Value =
        yaml_serde::from_str(text).map_err(|error| malformed(printable(&error.to_string())))?;
    let Value::Mapping(pairs) = document else {
        return Err(malformed("it is no mapping of ids to values".to_owned()));
    };
    let mut values = Values::new();
    for (id, value) in pairs {
        let Value::String(id) = id else { return Err(malformed("an id is no text".to_owned())) };
        let Value::String(value) = value else {
            return Err(malformed(format!("the value of `{}` is no text: put it in quotes", printable(&id))));
        };
        let id: ConfigurationId = id.parse().map_err(Error::Value)?;
        ConfigurationValue::new(id.clone(), value.clone()).map_err(Error::Value)?;
        values.insert(id, value);
    }
    Ok(values)
}
