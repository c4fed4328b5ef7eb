//! A member's handle on its group.

use std::sync::Arc;

use super::Shared;
use super::error::LogError;
use super::groups::{Assignment, Fence};

/// Leaves the group when dropped.
pub struct Membership {
    pub(super) shared: Arc<Shared>,
    pub(super) group: String,
    pub(super) member_id: String,
    pub(super) epoch: u64,
}

impl Membership {
    #[must_use]
    pub fn group(&self) -> &str {
        &self.group
    }

    #[must_use]
    pub fn member_id(&self) -> &str {
        &self.member_id
    }

    /// What to read now. `Fenced` if another took over this member's id.
    pub fn poll_assignment(&self) -> Result<Assignment, LogError> {
        let partitions_of = |topic| self.shared.partitions.count(topic);
        let groups = self.shared.groups.read();
        groups
            .assignment(&self.group, &self.member_id, self.epoch, partitions_of)
            .ok_or_else(|| LogError::Fenced { group: self.group.clone(), member_id: self.member_id.clone() })
    }

    /// What commits of work done under this generation must carry.
    #[must_use]
    pub fn fence(&self, generation: u64) -> Fence {
        Fence { group: self.group.clone(), member_id: self.member_id.clone(), generation, epoch: self.epoch }
    }

    /// The same as dropping it, but says so.
    pub fn leave(self) {}
}

impl Drop for Membership {
    fn drop(&mut self) {
        let left = self.shared.groups.write().leave(&self.group, &self.member_id, self.epoch);
        if left {
            self.shared.signal.notify();
        }
    }
}
