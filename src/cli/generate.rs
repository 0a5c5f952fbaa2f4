//! What the programs can tell of their own command lines: completions and manual pages.

use clap::{Args, Command, CommandFactory, ValueEnum};
use clap_complete::Shell;
use clap_mangen::Man;

use super::output::print;
use super::{Arguments, Error, PROGRAM};
use crate::wrapper;

#[derive(Debug, Args)]
pub(super) struct Completions {
    /// For which shell
    shell: Shell,
    /// For which program
    #[arg(long, value_name = "PROGRAM", default_value = "raxsr")]
    program: Program,
}

#[derive(Debug, Args)]
pub(super) struct Manual {
    /// The page of one command: `services list`
    #[arg(value_name = "COMMAND")]
    words: Vec<String>,
    /// Of which program
    #[arg(long, value_name = "PROGRAM", default_value = "raxsr")]
    program: Program,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Program {
    /// The command-line client and server.
    Raxsr,
    /// The wrapper.
    ServiceRegistryWrapper,
}

impl Program {
    fn command(self) -> Command {
        match self {
            Self::Raxsr => Arguments::command(),
            Self::ServiceRegistryWrapper => wrapper::args::command(),
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Raxsr => PROGRAM,
            Self::ServiceRegistryWrapper => wrapper::PROGRAM,
        }
    }
}

pub(super) fn completions(completions: &Completions) -> Result<(), Error> {
    let Completions { shell, program } = completions;
    let mut text = Vec::new();
    clap_complete::generate(*shell, &mut program.command(), program.name(), &mut text);
    print(&String::from_utf8_lossy(&text))?;
    Ok(())
}

pub(super) fn manual(manual: &Manual) -> Result<(), Error> {
    let Manual { words, program } = manual;
    let mut command = program.command();
    command.build();
    let mut page = &command;
    for word in words {
        let found = page.find_subcommand(word);
        page = found.ok_or_else(|| Error::NoSuchCommand(words.join(" ")))?;
    }
    // The name of a page: `raxsr-services-list`.
    let title = [&[program.name().to_owned()], &words[..]].concat().join("-");
    let mut text = Vec::new();
    Man::new(page.clone()).title(title).render(&mut text)?;
    print(&String::from_utf8_lossy(&text))?;
    Ok(())
}
