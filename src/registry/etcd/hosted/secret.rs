//! What all servers of a cluster have in common, made by whichever is there first.

use super::keys::Keys;
use crate::registry::etcd::client::Client;
use crate::registry::etcd::kv::Txn;
use crate::registry::{Access, EtcdUrl, Result, Secret};

pub(in crate::registry) async fn shared_secret(url: &EtcdUrl, access: &Access) -> Result<Secret> {
    let (client, key) = (Client::new(url, access), Keys::new(url.prefix()).secret());
    let ours = Secret::random();
    let txn = Txn::default().if_absent(&key).put(&key, ours.expose(), None).or_get(&key);
    let found = client.commit(txn).await?.found();
    Ok(found.map_or(ours, |found| Secret::new(String::from_utf8_lossy(&found.value))))
}
