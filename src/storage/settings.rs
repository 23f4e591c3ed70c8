//! The client of a bucket or of a web server, from what the user and the environment say.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use object_store::aws::{AmazonS3, AmazonS3Builder, AmazonS3ConfigKey};
use object_store::http::HttpBuilder;
use object_store::multipart::MultipartStore;
use object_store::{BackoffConfig, ClientOptions, ObjectStore, RetryConfig};

use super::StorageOptions;
use super::address::S3;
use super::profile::{Profile, variable};
use super::reason::NO_CREDENTIALS;
use crate::error::{Error, Result};

/// The variables that are read: those of the AWS SDKs. Any other beginning with `AWS_` is left alone, because the
/// client would refuse a value that it writes in another way (`AWS_TIMEOUT=30`).
const VARIABLES: [&str; 13] = [
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_DEFAULT_REGION",
    "AWS_REGION",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_ROLE_ARN",
    "AWS_ROLE_SESSION_NAME",
    "AWS_ENDPOINT_URL_STS",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
    "AWS_METADATA_ENDPOINT",
];

/// The variables with the address of the service, the first of which wins.
const ENDPOINTS: [&str; 3] = ["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT"];

/// The variables of which one is there where the environment gives credentials.
const CREDENTIALS: [&str; 4] = [
    "AWS_ACCESS_KEY_ID",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
];

/// The keys of a profile, and what the client calls them.
const KEYS: [(&str, AmazonS3ConfigKey); 3] = [
    ("aws_access_key_id", AmazonS3ConfigKey::AccessKeyId),
    ("aws_secret_access_key", AmazonS3ConfigKey::SecretAccessKey),
    ("aws_session_token", AmazonS3ConfigKey::Token),
];

/// The variables that name the region.
const REGIONS: [&str; 2] = ["AWS_REGION", "AWS_DEFAULT_REGION"];

/// Where a virtual machine of Amazon's asks for its role; the same on each.
const METADATA: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(169, 254, 169, 254)), 80);

/// How long that may take to answer: it is on the same machine. Elsewhere nobody is there.
const METADATA_WAIT: Duration = Duration::from_secs(1);

/// How long a connection may take to come about before another attempt is made.
const CONNECTING: Duration = Duration::from_secs(5);

/// Attempts of a request; the time alone ends them, and the pauses between them grow to [`LONGEST_PAUSE`].
const ATTEMPTS: usize = 1000;

/// The longest pause between two attempts: a service that was throttling, or away, is found again within it.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// What answers the requests for an address.
#[derive(Clone)]
pub(super) struct Service {
    /// Whole objects and ranges of them.
    pub(super) objects: Arc<dyn ObjectStore>,
    /// Objects that are written in parts; `None` of what can only be read.
    pub(super) uploads: Option<Arc<dyn MultipartStore>>,
    /// The part of every address before the object's key.
    pub(super) before_keys: String,
}

impl fmt::Debug for Service {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Service({})", self.before_keys)
    }
}

/// The service for an address. Makes no request.
pub(super) fn service(address: &str, options: &StorageOptions) -> Result<Service> {
    // Without a provider the client of TLS is not even built for http; a second call changes nothing.
    let _ = rustls::crypto::ring::default_provider().install_default();
    match address.strip_prefix(S3) {
        Some(rest) => {
            let bucket = rest.split('/').next().unwrap_or_default();
            if bucket.is_empty() {
                return Err(Error::Refused(format!("{address}: it names no bucket: s3://BUCKET/PREFIX")));
            }
            let store = s3(address, bucket, options)?;
            let (objects, uploads) = (store.clone(), Some(store as Arc<dyn MultipartStore>));
            Ok(Service { objects, uploads, before_keys: format!("{S3}{bucket}") })
        }
        None => web(address, options),
    }
}

fn s3(address: &str, bucket: &str, options: &StorageOptions) -> Result<Arc<AmazonS3>> {
    let is_named = CREDENTIALS.iter().any(|name| variable(name).is_some());
    let profile = if is_named || options.no_sign_request { Profile::without_keys() } else { Profile::of_user()? };
    let has_keys = is_named || profile.get(KEYS[0].0).is_some();
    if !options.no_sign_request && !has_keys && !is_amazons() {
        return Err(Error::Refused(format!("{address}: {NO_CREDENTIALS}")));
    }
    let mut builder = AmazonS3Builder::new().with_bucket_name(bucket);
    for name in VARIABLES {
        if let Some(value) = variable(name) {
            let key = AmazonS3ConfigKey::from_str(&name.to_ascii_lowercase());
            builder = builder.with_config(key.map_err(|error| refused(address, &error))?, value);
        }
    }
    for (name, key) in KEYS {
        if let Some(value) = profile.get(name) {
            builder = builder.with_config(key, value);
        }
    }
    if let Some(region) = profile.get("region").filter(|_| REGIONS.iter().all(|name| variable(name).is_none())) {
        builder = builder.with_region(region);
    }
    let endpoint = options.endpoint_url.clone().or_else(|| ENDPOINTS.into_iter().find_map(variable));
    let endpoint = endpoint.or_else(|| profile.get("endpoint_url").map(str::to_owned));
    let is_plain = endpoint.as_ref().is_some_and(|endpoint| endpoint.starts_with("http://"));
    if let Some(endpoint) = endpoint {
        builder = builder.with_endpoint(endpoint.trim_end_matches('/'));
    }
    let built = builder
        .with_skip_signature(options.no_sign_request)
        .with_retry(retry(options))
        .with_client_options(client_options(options).with_allow_http(is_plain))
        .build();
    built.map(Arc::new).map_err(|error| refused(address, &error))
}

/// Whether somebody answers who may have credentials, as on a virtual machine of Amazon's.
fn is_amazons() -> bool {
    variable("AWS_METADATA_ENDPOINT").is_some() || TcpStream::connect_timeout(&METADATA, METADATA_WAIT).is_ok()
}

fn web(address: &str, options: &StorageOptions) -> Result<Service> {
    let base = address.trim_end_matches('/');
    if base.contains(['?', '#']) {
        let reason = "addresses with ? or # name no folder, because the names of shards come behind them";
        return Err(Error::Refused(format!("{address}: {reason}")));
    }
    let built = HttpBuilder::new()
        .with_url(base)
        .with_retry(retry(options))
        .with_client_options(client_options(options).with_allow_http(base.starts_with("http://")))
        .build();
    let store = built.map_err(|error| refused(address, &error))?;
    Ok(Service { objects: Arc::new(store), uploads: None, before_keys: base.to_owned() })
}

fn retry(options: &StorageOptions) -> RetryConfig {
    let backoff = BackoffConfig { max_backoff: LONGEST_PAUSE, ..BackoffConfig::default() };
    RetryConfig { backoff, max_retries: ATTEMPTS, retry_timeout: options.timeout }
}

fn client_options(options: &StorageOptions) -> ClientOptions {
    ClientOptions::new().with_timeout(options.timeout).with_connect_timeout(CONNECTING.min(options.timeout))
}

fn refused(address: &str, error: &object_store::Error) -> Error {
    Error::Refused(format!("{address}: {}", super::reason::of(error)))
}

/// The text of an address.
///
/// # Errors
/// [`Error::Refused`] if it is no UTF-8.
pub(super) fn text(address: &Path) -> Result<&str> {
    address.to_str().ok_or_else(|| Error::Refused(format!("{}: an address is UTF-8", address.display())))
}
