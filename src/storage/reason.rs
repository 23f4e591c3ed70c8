//! What an error of the client means to a user: kind, reason and remedy, without what the client says of itself.

use std::error::Error as _;
use std::io::{self, ErrorKind};

use object_store::Error;

/// What the codes of S3 ask a user to do.
const REMEDIES: [(&str, ErrorKind, &str); 13] = [
    ("NoSuchBucket", ErrorKind::InvalidInput, "there is no such bucket; look at its name and at --endpoint-url"),
    ("NoSuchKey", ErrorKind::NotFound, "there is no such object"),
    ("NoSuchUpload", ErrorKind::NotFound, "the storage does not know this upload any more"),
    (
        "NotImplemented",
        ErrorKind::Unsupported,
        "the storage does not know this kind of request; materialize needs \
        uploads in parts, and writes with If-Match and If-None-Match",
    ),
    ("AccessDenied", ErrorKind::PermissionDenied, "these credentials may not read it"),
    ("InvalidAccessKeyId", ErrorKind::PermissionDenied, "the storage does not know the key in AWS_ACCESS_KEY_ID"),
    ("SignatureDoesNotMatch", ErrorKind::PermissionDenied, "AWS_SECRET_ACCESS_KEY does not belong to the key"),
    ("ExpiredToken", ErrorKind::PermissionDenied, "the credentials have expired; get new ones and start again"),
    ("RequestTimeTooSkewed", ErrorKind::PermissionDenied, "the clock of this machine is off; set it"),
    ("AuthorizationHeaderMalformed", ErrorKind::InvalidInput, "the bucket is in another region; set AWS_REGION"),
    ("PermanentRedirect", ErrorKind::InvalidInput, "the bucket is in another region; set AWS_REGION"),
    ("InvalidRange", ErrorKind::UnexpectedEof, "it is shorter than that"),
    ("SlowDown", ErrorKind::TimedOut, "the storage asks for fewer requests; a larger --storage-timeout waits longer"),
];

/// What is missing where nothing gives credentials.
pub(super) const NO_CREDENTIALS: &str = "no credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or \
    AWS_PROFILE for a profile in ~/.aws, or read a public bucket with --no-sign-request";

/// What an error names where the service for roles on virtual machines of Amazon's has none.
const OF_METADATA: [&str; 2] = ["/latest/api/token", "/latest/meta-data"];

/// What is missing where shards may be read and not written.
const NO_RIGHT: &str = "these credentials may not write here, for which S3 wants s3:PutObject, s3:DeleteObject, \
    s3:AbortMultipartUpload, and to read: s3:GetObject, s3:ListBucket";

/// The error of a request that writes.
pub(super) fn of_writing(error: &Error) -> io::Error {
    if between(&chain(error), "<Code>", "</Code>") == Some("AccessDenied") {
        return io::Error::new(ErrorKind::PermissionDenied, NO_RIGHT);
    }
    of(error)
}

/// The error of the operating system's kind that a request's error is, with what can be done.
pub(super) fn of(error: &Error) -> io::Error {
    let text = chain(error);
    let code = between(&text, "<Code>", "</Code>");
    if let Some((code, kind, remedy)) = REMEDIES.into_iter().find(|(known, ..)| code == Some(known)) {
        return io::Error::new(kind, format!("{remedy} ({code})"));
    }
    if OF_METADATA.iter().any(|part| text.contains(part)) {
        return io::Error::new(ErrorKind::PermissionDenied, NO_CREDENTIALS);
    }
    let (kind, reason) = match error {
        Error::NotFound { .. } => (ErrorKind::NotFound, "it is not there".to_owned()),
        Error::PermissionDenied { .. } | Error::Unauthenticated { .. } => {
            (ErrorKind::PermissionDenied, "the storage refuses it to these credentials".to_owned())
        }
        Error::AlreadyExists { .. } => (ErrorKind::AlreadyExists, "there is an object of this name".to_owned()),
        Error::Precondition { .. } => (ErrorKind::StaleNetworkFileHandle, "it is another object now".to_owned()),
        Error::NotSupported { .. } if text.contains("Range") || text.contains("range") => {
            (ErrorKind::Unsupported, "the server sends whole files only; it must know requests of ranges".to_owned())
        }
        Error::Generic { .. } if text.contains("incorrectly configured region") => {
            (ErrorKind::InvalidInput, "the bucket is in another region; set AWS_REGION".to_owned())
        }
        _ => (ErrorKind::TimedOut, deepest(error)),
    };
    let code = code.map_or_else(String::new, |code| format!(" ({code})"));
    io::Error::new(kind, reason + &code)
}

/// The text of an error and of all that caused it.
fn chain(error: &Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push('\n');
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

/// The first cause, which names what happened: "Connection refused".
fn deepest(error: &Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = error.to_string();
        cause = error.source();
    }
    text
}

fn between<'a>(text: &'a str, before: &str, behind: &str) -> Option<&'a str> {
    Some(text.split_once(before)?.1.split_once(behind)?.0)
}
