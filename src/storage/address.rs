//! Addresses of object storage, which stand where paths stand.

use std::path::{Path, PathBuf};

/// The beginning of addresses of buckets.
pub(super) const S3: &str = "s3://";

/// The beginnings of all addresses.
const SCHEMES: [&str; 3] = [S3, "https://", "http://"];

/// Whether a path is an address in object storage, such as `s3://bucket/prefix`.
pub fn is_address(path: &Path) -> bool {
    let text = path.as_os_str().as_encoded_bytes();
    SCHEMES.iter().any(|scheme| text.starts_with(scheme.as_bytes()))
}

/// The beginning of an address that all addresses of one store have: that of its bucket, or of its folder on a web
/// server.
pub(super) fn root(address: &Path) -> PathBuf {
    match address.to_str().and_then(|text| text.strip_prefix(S3)) {
        Some(rest) => format!("{S3}{}", rest.split('/').next().unwrap_or_default()).into(),
        None => address.parent().filter(|folder| is_address(folder)).unwrap_or(address).to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_begin_with_a_scheme_and_paths_do_not() {
        for address in ["s3://bucket", "s3://bucket/a/b", "https://host/a", "http://127.0.0.1:9000/a"] {
            assert!(is_address(Path::new(address)), "{address}");
        }
        for path in ["/s3://bucket", "s3:/bucket", "./s3://bucket", "S3", "s3", "ftp://host", "https", ""] {
            assert!(!is_address(Path::new(path)), "{path}");
        }
        assert!(is_address(&Path::new("s3://bucket/a").join("shard-000000.tar")), "joined as paths are");
    }

    #[test]
    fn the_root_is_the_bucket_or_the_folder() {
        for (address, expected) in [
            ("s3://bucket", "s3://bucket"),
            ("s3://bucket/a/b.csv", "s3://bucket"),
            ("s3://", "s3://"),
            ("https://host/a/b.csv", "https://host/a"),
            ("http://host", "http://host"),
        ] {
            assert_eq!(root(Path::new(address)).to_str(), Some(expected));
        }
    }
}
