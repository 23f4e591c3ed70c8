//! Addresses of object storage, which stand where paths stand.

use std::path::Path;

/// The beginning of addresses of buckets.
pub(super) const S3: &str = "s3://";

/// The beginnings of all addresses.
const SCHEMES: [&str; 3] = [S3, "https://", "http://"];

/// Whether a path is an address in object storage, such as `s3://bucket/prefix`.
pub fn is_address(path: &Path) -> bool {
    let text = path.as_os_str().as_encoded_bytes();
    SCHEMES.iter().any(|scheme| text.starts_with(scheme.as_bytes()))
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
}
