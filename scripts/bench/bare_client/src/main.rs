//! `bare-client BUCKET KEY...`: reads objects whole, one after the other, by requests of 4 MiB of which four are in
//! flight, and drops the bytes. Prints their number. The service and the credentials come from the environment.

use std::sync::Arc;

use futures_util::{StreamExt, TryStreamExt, stream};
use object_store::aws::AmazonS3Builder;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};

/// The bytes of a request, and the requests in flight: those of the program.
const REQUEST: u64 = 4 << 20;
const IN_FLIGHT: usize = 4;

async fn read(client: Arc<dyn ObjectStore>, key: String) -> object_store::Result<u64> {
    let key = Path::parse(key)?;
    let size = client.head(&key).await?.size;
    let ranges = (0..size).step_by(REQUEST as usize).map(|start| start..size.min(start + REQUEST));
    let asked = stream::iter(ranges).map(|range| {
        let (client, key) = (client.clone(), key.clone());
        async move { client.get_range(&key, range).await }
    });
    asked.buffered(IN_FLIGHT).try_fold(0, |sum, bytes| async move { Ok(sum + bytes.len() as u64) }).await
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut arguments = std::env::args().skip(1);
    let bucket = arguments.next().ok_or("bare-client BUCKET KEY...")?;
    let client = AmazonS3Builder::from_env().with_bucket_name(bucket).with_allow_http(true).build()?;
    let client: Arc<dyn ObjectStore> = Arc::new(client);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut bytes = 0;
    for key in arguments {
        bytes += runtime.block_on(read(client.clone(), key))?;
    }
    println!("{bytes}");
    Ok(())
}
