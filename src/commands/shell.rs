//! `ctwds-fs completions` and `ctwds-fs man`: completions of shells and manual pages, made of the definitions that the
//! command line is parsed by.

use std::fs;
use std::io;
use std::process::ExitCode;

use clap_complete::Shell;
use clap_mangen::Man;
use clap_mangen::roff::{Roff, roman};

use super::terminal::{print, print_exactly};
use crate::base::durable::publish;
use crate::cli::{self, CompletionsArgs, ManArgs};
use crate::error::{Error, Result, shown};

/// The program's name, for which a shell completes.
const PROGRAM: &str = "ctwds-fs";

/// The program's name without a hyphen.
const PLAIN_NAME: &str = "ctwdsfs";

/// Prints the completions of a shell.
///
/// # Errors
/// They cannot be printed.
pub(super) fn completions(args: &CompletionsArgs) -> Result<ExitCode> {
    print_exactly(script(args.shell).as_bytes(), "print the completions")?;
    Ok(ExitCode::SUCCESS)
}

fn script(shell: Shell) -> String {
    let generated = |name: &'static str| {
        let mut script = Vec::new();
        clap_complete::generate(shell, &mut visible(&cli::command()).name(name), name, &mut script);
        String::from_utf8_lossy(&script).into_owned()
    };
    // The bash script of clap_complete 4.6 completes nothing behind a subcommand where the name has a hyphen
    // (clap-rs/clap#6421): it is made for another name, and registered for this one.
    match shell {
        Shell::Bash => generated(PLAIN_NAME).replace(&format!(" {PLAIN_NAME}\n"), &format!(" {PROGRAM}\n")),
        _ => generated(PROGRAM),
    }
}

/// A command without what is hidden from its help, which a shell would offer.
fn visible(command: &clap::Command) -> clap::Command {
    let about = command.get_about().cloned().unwrap_or_default();
    let arguments = command.get_arguments().filter(|argument| !argument.is_hide_set());
    clap::Command::new(command.get_name().to_owned())
        .about(about)
        .disable_help_flag(true)
        .disable_version_flag(true)
        .version(command.get_version().unwrap_or_default().to_owned())
        .visible_aliases(command.get_visible_aliases().map(str::to_owned).collect::<Vec<_>>())
        .args(arguments.cloned())
        .subcommands(command.get_subcommands().map(visible))
}

/// Writes a manual page of each command, and one of the program.
///
/// # Errors
/// The folder or a page cannot be written.
pub(super) fn man(args: &ManArgs) -> Result<ExitCode> {
    let folder = &args.folder;
    fs::create_dir_all(folder).map_err(|error| Error::io(folder, "make the folder", error))?;
    let mut root = cli::command().disable_help_subcommand(true);
    root.build();
    let mut pages = Vec::new();
    collect(&root, "", &mut pages)?;
    for (name, page) in &pages {
        publish(folder, name, page)?;
    }
    print(
        format!("{}: {} manual pages written; man {PROGRAM} shows the first\n", shown(folder), pages.len()),
        "print where the pages are",
    )?;
    Ok(ExitCode::SUCCESS)
}

/// Adds the pages of a command and of those below it, each with its file's name; `path` is the command's name behind
/// that of the program.
fn collect(command: &clap::Command, path: &str, pages: &mut Vec<(String, Vec<u8>)>) -> Result<()> {
    let page = render(command, path).map_err(|error| Error::Internal(error.to_string()))?;
    pages.push((Man::new(command.clone()).get_filename(), page));
    for deeper in command.get_subcommands().filter(|deeper| !deeper.is_hide_set()) {
        let path = format!("{path} {}", deeper.get_name());
        collect(deeper, path.trim_start(), pages)?;
    }
    Ok(())
}

fn render(command: &clap::Command, path: &str) -> io::Result<Vec<u8>> {
    let (man, mut page) = (Man::new(command.clone()), Vec::new());
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
    man.render_description_section(&mut page)?;
    section("EXAMPLE", cli::examples(path).iter().copied()).to_writer(&mut page)?;
    man.render_options_section(&mut page)?;
    if command.get_subcommands().next().is_some() {
        man.render_subcommands_section(&mut page)?;
    }
    if let Some(after) = command.get_after_long_help().or(command.get_after_help()) {
        let after = after.to_string();
        if !after.is_empty() {
            section("NOTES", after.lines()).to_writer(&mut page)?;
        }
    }
    Ok(page)
}

/// A section whose lines stay as they are.
fn section<'a>(title: &str, lines: impl Iterator<Item = &'a str>) -> Roff {
    let mut section = Roff::new();
    section.control("SH", [title]);
    section.control("nf", []);
    for line in lines {
        section.text([roman(line)]);
    }
    section.control("fi", []);
    section
}
