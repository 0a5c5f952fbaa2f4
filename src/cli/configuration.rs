use std::io::Read;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use serde::Serialize;

use super::output::{Cell, Extent, Output, Row, print};
use super::part::Part;
use super::{Error, transfer};
use crate::model::{ConfigurationId, ConfigurationValue, Namespace, Page};
use crate::registry::{ConfigurationQuery, ConfigurationStore, Registry};

#[derive(Debug, Subcommand)]
pub(super) enum Action {
    /// List the configuration values
    List(List),
    /// Show one value
    Get(Get),
    /// Create or replace a value
    Set(Set),
    /// Remove a value
    Remove(Which),
    /// Write a namespace as YAML, or JSON with `-f json`: what `import` reads
    Export(transfer::Export),
    /// Create and replace values as a file has them
    Import(transfer::Import),
}

#[derive(Debug, Args)]
pub(super) struct List {
    /// Only those in this namespace and below
    #[arg(long, value_name = "NAMESPACE")]
    namespace: Option<Namespace>,
    #[command(flatten)]
    part: Part,
}

#[derive(Debug, Args)]
pub(super) struct Which {
    /// The value's id
    #[arg(value_name = "ID", required_unless_present = "id")]
    positional: Option<ConfigurationId>,
    /// The same, as an option
    #[arg(long, value_name = "ID", conflicts_with = "positional")]
    id: Option<ConfigurationId>,
}

#[derive(Debug, Args)]
pub(super) struct Get {
    #[command(flatten)]
    which: Which,
    /// The value and nothing else, for a script
    #[arg(long)]
    raw: bool,
}

#[derive(Debug, Args)]
pub(super) struct Set {
    /// The value's id, and the value unless it is given otherwise
    #[arg(value_name = "ID [VALUE]", num_args = 0..=2)]
    words: Vec<String>,
    /// The id, as an option
    #[arg(long, value_name = "ID")]
    id: Option<ConfigurationId>,
    /// The value, as an option
    #[arg(long, value_name = "VALUE", conflicts_with = "file")]
    value: Option<String>,
    /// The file that holds the value; `-` for standard input. A line's end at its end is not part of it
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
}

pub(super) async fn run(action: Action, registry: &dyn Registry, output: &Output) -> Result<(), Error> {
    let store = registry.configuration()?;
    match action {
        Action::List(List { namespace, part }) => {
            let page = page(store, namespace, &part).await?;
            output.page(&page, part.extent())?;
        }
        Action::Get(Get { which, raw }) => {
            if let Some(id) = which.positional.or(which.id) {
                let value = store.value(&id).await?;
                if raw { print(value.value()) } else { output.item(&value) }?;
            }
        }
        Action::Set(set) => {
            let value = set.value()?;
            store.set(&value).await?;
            print(&format!(
                "Value for key \"{}\" set to \"{}\"\n",
                value.id,
                crate::model::escaped(value.value())
            ))?;
        }
        Action::Remove(which) => {
            if let Some(id) = which.positional.or(which.id) {
                store.remove(&id).await?;
                print(&format!("Configuration value \"{id}\" has been removed\n"))?;
            }
        }
        Action::Export(export) => transfer::export(export, store, output).await?,
        Action::Import(import) => transfer::import(import, store).await?,
    }
    Ok(())
}

impl Set {
    fn value(self) -> Result<ConfigurationValue, Error> {
        let mut words = self.words.into_iter();
        let id = match self.id {
            Some(id) => id,
            None => words.next().ok_or(Error::Missing("the value's id"))?.parse().map_err(Error::Value)?,
        };
        let value = match (self.value, self.file, words.next()) {
            (Some(value), None, None) | (None, None, Some(value)) => value,
            (None, Some(file), None) => without_line_end(read(&file)?),
            (None, None, None) => return Err(Error::Missing("the value: VALUE, --value or --file")),
            _ => return Err(Error::Twice("the value")),
        };
        if words.next().is_some() {
            return Err(Error::Twice("the value's id"));
        }
        ConfigurationValue::new(id, value).map_err(Error::Value)
    }
}

/// A file's text; standard input's for `-`.
pub(super) fn read(path: &Path) -> Result<String, Error> {
    let mut text = String::new();
    let outcome = if path == Path::new("-") {
        std::io::stdin().read_to_string(&mut text).map(drop)
    } else {
        std::fs::read_to_string(path).map(|content| text = content)
    };
    outcome.map_err(|source| Error::File { path: path.to_owned(), source })?;
    Ok(text)
}

fn without_line_end(mut text: String) -> String {
    if text.ends_with('\n') {
        text.pop();
        if text.ends_with('\r') {
            text.pop();
        }
    }
    text
}

/// The values that are wanted: a page of them, or all.
pub(super) async fn page(
    store: &dyn ConfigurationStore,
    namespace: Option<Namespace>,
    part: &Part,
) -> Result<Page<ConfigurationValue, ConfigurationId>, Error> {
    let mut query = ConfigurationQuery { namespace, page: part.first_page() };
    let mut page = store.values(&query).await?;
    if let Extent::Page(_) = part.extent() {
        return Ok(page);
    }
    while let Some(next) = page.next_marker.take() {
        query.page.marker = Some(next.into());
        let more = store.values(&query).await?;
        page.values.extend(more.values);
        page.next_marker = more.next_marker;
    }
    Ok(page)
}

impl Row for ConfigurationValue {
    const HEADINGS: &'static [&'static str] = &["ID", "Value"];

    fn cells(&self) -> Vec<Cell> {
        vec![Cell::text(&self.id), Cell::text(self.value())]
    }

    fn data(&self) -> impl Serialize {
        self
    }
}
