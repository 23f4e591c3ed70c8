//! Which files of a data folder are volumes: by their suffix, and by the user's patterns. Pure.

use std::ffi::OsStr;
use std::fmt;
use std::path::Path;
use std::str::FromStr;

use glob::{MatchOptions, Pattern};

use crate::formats::volume_file::Format;

/// As a shell matches names: `*` stays within a name, and does not match the dot of a hidden one.
const AS_A_SHELL: MatchOptions =
    MatchOptions { case_sensitive: true, require_literal_separator: true, require_literal_leading_dot: true };

/// The format of the files that are volumes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Source {
    /// NPZ, NPY and NIfTI files.
    #[default]
    Auto,
    /// NPZ files.
    Npz,
    /// NPY files.
    Npy,
    /// NIfTI files: *.nii.gz and *.nii.
    Nifti,
}

impl Source {
    /// Whether a file of this name is a volume.
    pub(super) fn is_volume(self, name: &OsStr) -> bool {
        Format::of(name).is_some_and(|format| match self {
            Self::Auto => true,
            Self::Npz => format == Format::Npz,
            Self::Npy => format == Format::Npy,
            Self::Nifti => format.is_nifti(),
        })
    }

    /// The files of the format, for messages.
    pub(super) fn files(self) -> &'static str {
        match self {
            Self::Auto => "NPZ, NPY or NIfTI file",
            Self::Npz => "NPZ file",
            Self::Npy => "NPY file",
            Self::Nifti => "NIfTI file",
        }
    }
}

/// A pattern of paths relative to the data folder, as a shell's and Python's `glob`: `images/*.npz`, `**/ct_?.npy`.
#[derive(Clone, PartialEq, Eq)]
pub struct FilePattern {
    whole: Pattern,
    /// One pattern for each folder of the paths; `None` for `**`.
    folders: Vec<Option<Pattern>>,
}

impl FromStr for FilePattern {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.strip_prefix("./").unwrap_or(text);
        let parts: Vec<&str> = text.split('/').collect();
        if parts.iter().any(|part| ["", ".", ".."].contains(part)) {
            return Err("expected a pattern relative to the data folder, such as images/*.npz or **/ct.npy".into());
        }
        let whole = Pattern::new(text).map_err(|error| error.to_string())?;
        let folder = |part: &&str| match *part {
            "**" => Ok(None),
            part => Pattern::new(part).map(Some).map_err(|error| error.to_string()),
        };
        let folders = parts[..parts.len() - 1].iter().map(folder).collect::<Result<_, String>>()?;
        Ok(Self { whole, folders })
    }
}

impl fmt::Display for FilePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.whole.as_str())
    }
}

impl fmt::Debug for FilePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.whole.as_str(), f)
    }
}

impl FilePattern {
    /// Whether the pattern matches a path.
    pub(super) fn matches(&self, path: &Path) -> bool {
        // `**` at the end means files of any depth, for Python's `glob` too.
        self.whole.matches_path_with(path, AS_A_SHELL)
    }

    /// Whether a path below `folder` may match.
    fn enters(&self, folder: &Path) -> bool {
        let mut patterns = self.folders.iter();
        for name in folder.iter() {
            match patterns.next() {
                None => return self.whole.as_str().ends_with("**"),
                Some(None) => return true,
                Some(Some(pattern)) => {
                    if !name.to_str().is_some_and(|name| pattern.matches_with(name, AS_A_SHELL)) {
                        return false;
                    }
                }
            }
        }
        true // what is left is the file, or further folders
    }
}

/// What the user says of the files that are volumes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FileChoice {
    /// The format of the files.
    pub source: Source,
    /// The patterns of which a file must match one; without any, the depth of the folder decides that has the most.
    pub patterns: Vec<FilePattern>,
}

impl FileChoice {
    /// Whether the choice may leave out files that the default takes.
    pub(super) fn is_part(&self) -> bool {
        *self != Self::default()
    }

    /// Whether some pattern may match a path below `folder`.
    pub(super) fn enters(&self, folder: &Path) -> bool {
        self.patterns.iter().any(|pattern| pattern.enters(folder))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(text: &str) -> FilePattern {
        text.parse().unwrap()
    }

    #[test]
    fn patterns_match_as_a_shell_does() {
        for (text, path, expected) in [
            ("images/*.npz", "images/a.npz", true),
            ("images/*.npz", "images/b/a.npz", false),
            ("./images/*.npz", "images/a.npz", true),
            ("**/*.npz", "a.npz", true),
            ("**/*.npz", "x/y/a.npz", true),
            ("x/**/a.npz", "x/a.npz", true),
            ("*.npz", ".a.npz", false),
            ("[ab]?.npy", "a1.npy", true),
            ("[!ab]?.npy", "a1.npy", false),
            ("*.npz", "a.NPZ", false),
        ] {
            assert_eq!(pattern(text).matches(Path::new(path)), expected, "{text} {path}");
        }
        for text in ["", "/a/*.npz", "../*.npz", "a//b", "a/", "a**/b", "[a"] {
            assert!(text.parse::<FilePattern>().is_err(), "{text}");
        }
    }

    #[test]
    fn only_folders_on_the_way_are_entered() {
        for (text, folder, expected) in [
            ("images/*.npz", "images", true),
            ("images/*.npz", "masks", false),
            ("images/*.npz", "images/x", false),
            ("*/ct/*.npz", "a", true),
            ("*/ct/*.npz", "a/ct", true),
            ("*/ct/*.npz", "a/pet", false),
            ("a/**/b.npz", "a/x/y/z", true),
            ("a/**/b.npz", "b", false),
            ("*.npz", "a", false),
            ("a/**", "a/b", true),
        ] {
            assert_eq!(pattern(text).enters(Path::new(folder)), expected, "{text} {folder}");
        }
    }
}
