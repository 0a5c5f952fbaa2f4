use serde::{Deserialize, Serialize};

use crate::model::{InstanceId, Registration, Timestamp};
use crate::registry::Claim;

/// What is kept of a service under its id.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    #[serde(flatten)]
    pub(super) registration: Registration,
    pub(super) instance: InstanceId,
    pub(super) holder: String,
    pub(super) registered_at: Timestamp,
    /// Its node for consumers, without the chroot, once that is known.
    pub(super) entry: Option<String>,
}

impl Record {
    /// Of a service whose node for consumers is not known yet.
    pub(super) fn new(registration: &Registration, claim: &Claim, registered_at: Timestamp) -> Self {
        let (registration, instance, holder) = (registration.clone(), claim.instance, claim.holder.clone());
        Self { registration, instance, holder, registered_at, entry: None }
    }

    /// None where somebody else has written something else.
    pub(super) fn read(data: &[u8]) -> Option<Self> {
        serde_json::from_slice(data).ok()
    }

    pub(super) fn write(&self) -> Vec<u8> {
        // Texts and numbers only: there is nothing that cannot be JSON.
        serde_json::to_vec(self).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{HeartbeatTimeout, Metadata, Tag, Tags};
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_registration_comes_back(
            pairs in prop::collection::btree_map(".{1,60}", ".{1,60}", 0..20),
            tags in prop::collection::vec(".{1,55}", 0..10),
            holder in ".*",
        ) {
            let registration = Registration {
                id: "web1".parse().unwrap(),
                heartbeat_timeout: HeartbeatTimeout::MIN,
                tags: Tags::new(tags.into_iter().map(|tag| Tag::new(tag).unwrap()).collect()).unwrap(),
                metadata: Metadata::new(pairs).unwrap(),
            };
            let record = Record {
                registration,
                instance: InstanceId::unique(),
                holder,
                registered_at: Timestamp::now(),
                entry: None,
            };
            prop_assert_eq!(Record::read(&record.write()), Some(record));
        }
    }
}
