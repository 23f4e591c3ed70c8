//! What the environment says, and profiles: keys, region and service that Amazon's own tools keep in a user's files.

use std::collections::HashMap;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use configparser::ini::Ini;

use crate::base::files;
use crate::error::{Error, Result, shown};

/// The variables that name the two files, with the names of these below the user's home.
const FILES: [(&str, &str); 2] =
    [("AWS_SHARED_CREDENTIALS_FILE", ".aws/credentials"), ("AWS_CONFIG_FILE", ".aws/config")];

/// What a profile has that gets its keys from elsewhere.
const ELSEWHERE: [&str; 6] =
    ["credential_process", "credential_source", "login_session", "role_arn", "sso_session", "sso_start_url"];

/// A variable of the environment that is not empty.
pub(super) fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// The values of one profile.
#[derive(Default)]
pub(super) struct Profile(HashMap<String, String>);

impl Profile {
    /// The user's profile: that of `AWS_PROFILE`, else the one of the name `default`, which may be missing.
    ///
    /// # Errors
    /// [`Error::Refused`] if a profile that was asked for is missing, or gets its keys in a way that is not known here;
    /// [`Error::Io`] if a file is there and cannot be read.
    pub(super) fn of_user() -> Result<Self> {
        Self::read(&user_files(), variable("AWS_PROFILE").as_deref())
    }

    /// What the user's profile says beside keys, where these come from elsewhere; nothing if it cannot be read, since
    /// nothing asked for it.
    pub(super) fn without_keys() -> Self {
        let name = variable("AWS_PROFILE");
        let mut found = found(&user_files(), name.as_deref().unwrap_or("default")).unwrap_or_default();
        found.retain(|name, _| !name.starts_with("aws_"));
        Self(found)
    }

    /// A profile in these files, of keys and of all else.
    fn read(files: &[PathBuf; 2], asked: Option<&str>) -> Result<Self> {
        let ([keys, other], name) = (files, asked.unwrap_or("default"));
        let found = found(files, name)?;
        if found.is_empty() && asked.is_some() {
            let (name, files) = (shown(name), format!("{} and {}", keys.display(), other.display()));
            return Err(Error::Refused(format!("AWS_PROFILE: there is no profile {name} in {files}")));
        }
        let elsewhere = ELSEWHERE.iter().find(|name| found.contains_key(**name));
        match elsewhere.filter(|_| !found.contains_key("aws_access_key_id")) {
            Some(way) => Err(Error::Refused(format!(
                "the profile {} in {} gets its keys by {way}, which this program does not know; put keys into the \
                 environment: AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN",
                shown(name),
                other.display()
            ))),
            None => Ok(Self(found)),
        }
    }

    /// A value, if the profile has it.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }
}

/// The files of the user's profiles.
fn user_files() -> [PathBuf; 2] {
    let home = std::env::home_dir().unwrap_or_default();
    FILES.map(|(name, usual)| variable(name).map_or_else(|| home.join(usual), PathBuf::from))
}

/// What the files of keys and of all else say of a profile.
fn found([keys, other]: &[PathBuf; 2], name: &str) -> Result<HashMap<String, String>> {
    let section = if name == "default" { name.to_owned() } else { format!("profile {name}") };
    let mut found = HashMap::new();
    for (path, section) in [(other, &*section), (keys, name)] {
        found.extend(values(path, section)?.into_iter().flatten());
    }
    Ok(found)
}

/// The values of a section; `None` if there is no such file or section.
fn values(path: &Path, section: &str) -> Result<Option<HashMap<String, String>>> {
    let content = match files::read(path) {
        Ok(content) => content,
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => return Ok(None),
        Err(error) => return Err(Error::io(path, "read the profile", error)),
    };
    // As Python's `configparser`, by which Amazon's tools read them: comments are lines of their own.
    let mut ini = Ini::new_cs();
    ini.set_comment_symbols(&['#', ';']);
    ini.set_inline_comment_symbols(Some(&[]));
    let sections = String::from_utf8(content).ok().and_then(|text| ini.read(text).ok());
    // What the parser says would quote a line, and with it a key.
    let no_profiles = || Error::Refused(format!("{}: it is no file of profiles ([name], key = value)", path.display()));
    let mut sections = sections.ok_or_else(no_profiles)?;
    let found = sections.remove(section);
    Ok(found.map(|values| values.into_iter().filter_map(|(key, value)| Some((key.to_lowercase(), value?))).collect()))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn read(keys: &str, other: &str, asked: Option<&str>) -> Result<Profile, String> {
        let folder = tempfile::tempdir().unwrap();
        let paths = ["keys", "other"].map(|name| folder.path().join(name));
        for (path, text) in paths.iter().zip([keys, other]).filter(|(_, text)| !text.is_empty()) {
            fs::write(path, text).unwrap();
        }
        Profile::read(&paths, asked).map_err(|error| error.to_string().replace(folder.path().to_str().unwrap(), ""))
    }

    #[test]
    fn both_files_make_a_profile_and_the_one_of_keys_wins() {
        let keys = "# a comment\n[default]\naws_access_key_id = A\naws_secret_access_key=a+/=#;:b\n\n[lab]\nAWS_ACCESS_KEY_ID: L\n";
        let other = "[default]\nregion = eu-1\naws_access_key_id = Z\ns3 =\n  max_concurrent_requests = 20\n[profile lab]\n\
                     endpoint_url = http://s3.lab:9000\nregion=lab-1\n[lab]\nregion = wrong\n";
        let profile = read(keys, other, None).unwrap();
        let all = ["aws_access_key_id", "aws_secret_access_key", "region", "endpoint_url"];
        assert_eq!(all.map(|name| profile.get(name)), [Some("A"), Some("a+/=#;:b"), Some("eu-1"), None]);
        let profile = read(keys, other, Some("lab")).unwrap();
        assert_eq!(all.map(|name| profile.get(name)), [Some("L"), None, Some("lab-1"), Some("http://s3.lab:9000")]);
        assert_eq!(read("", "", None).unwrap().get("region"), None);
    }

    #[test]
    fn what_cannot_be_used_is_said_without_a_key() {
        let message = |keys: &str, other: &str, asked| read(keys, other, asked).err().unwrap();
        assert!(message("[default]\n", "", Some("lab")).contains("no profile lab in /keys and /other"));
        assert!(message("", "[default]\nsso_session = x\n", None).contains("gets its keys by sso_session"));
        assert!(message("", "[profile r]\nrole_arn = x\n", Some("r")).contains("by role_arn"));
        let broken = message("[default\naws_secret_access_key = secret\n", "", None);
        assert!(broken.contains("no file of profiles") && !broken.contains("secret"), "{broken}");
    }
}
