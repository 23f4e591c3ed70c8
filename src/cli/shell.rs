//! The command lines of `completions` and `man`: what a system shows of this program besides its own help.

use std::path::PathBuf;

use clap::Args;
use clap_complete::Shell;

const PLACES: &str = "\
Where shells look for the script:
  bash  ~/.local/share/bash-completion/completions/ctwds-fs
  zsh   a file _ctwds-fs in a folder of fpath, such as ~/.zfunc
  fish  ~/.config/fish/completions/ctwds-fs.fish";

/// `completions`.
#[derive(Debug, Args)]
#[command(after_help = PLACES)]
pub struct CompletionsArgs {
    /// The shell that is to complete commands, options and files
    #[arg(value_name = "SHELL")]
    pub shell: Shell,
}

/// `man`.
#[derive(Debug, Args)]
pub struct ManArgs {
    /// Folder for the pages, created if missing: a folder man1 of one that `manpath` lists
    #[arg(value_name = "DIR")]
    pub folder: PathBuf,
}
