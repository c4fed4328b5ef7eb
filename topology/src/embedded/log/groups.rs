//! Pure: no I/O, no clock, no async.
//!
//! Consumer groups: who is in, who reads what, and whose commits still count.

use std::collections::BTreeMap;

use neonhub_schemas::record::TopicPartition;
use neonhub_schemas::topics::Topic;

/// Proof of membership that a commit carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fence {
    pub group: String,
    pub member_id: String,
    /// The generation of the assignment that the work was done under.
    pub generation: u64,
    /// Tells a member from an older holder of the same id.
    pub epoch: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assignment {
    /// Grows whenever members come or go.
    pub generation: u64,
    pub partitions: Vec<TopicPartition>,
}

#[derive(Debug)]
struct Member {
    epoch: u64,
    topics: Vec<Topic>,
}

#[derive(Debug, Default)]
struct Group {
    generation: u64,
    members: BTreeMap<String, Member>,
}

#[derive(Debug, Default)]
pub struct Groups {
    groups: BTreeMap<String, Group>,
    last_epoch: u64,
}

impl Groups {
    /// Returns the member's epoch. Joining again under the same id and with the same topics (a restarted worker) takes
    /// over from the older holder without disturbing the others.
    pub fn join(&mut self, group: &str, member_id: &str, topics: &[Topic]) -> u64 {
        self.last_epoch += 1;
        let group = self.groups.entry(group.to_owned()).or_default();
        let member = Member { epoch: self.last_epoch, topics: topics.to_vec() };
        let replaced = group.members.insert(member_id.to_owned(), member);
        if replaced.is_none_or(|older| older.topics != topics) {
            group.generation += 1;
        }
        self.last_epoch
    }

    /// Says whether the member was still in.
    pub fn leave(&mut self, group: &str, member_id: &str, epoch: u64) -> bool {
        let Some(group) = self.groups.get_mut(group) else { return false };
        if group.members.get(member_id).is_none_or(|member| member.epoch != epoch) {
            return false;
        }
        group.members.remove(member_id);
        group.generation += 1;
        true
    }

    pub fn admits(&self, fence: &Fence) -> bool {
        self.groups.get(&fence.group).is_some_and(|group| {
            group.generation == fence.generation
                && group.members.get(&fence.member_id).is_some_and(|member| member.epoch == fence.epoch)
        })
    }

    /// `None` if the member left or was replaced.
    pub fn assignment(
        &self,
        group: &str,
        member_id: &str,
        epoch: u64,
        partitions_of: impl Fn(Topic) -> u32,
    ) -> Option<Assignment> {
        let group = self.groups.get(group)?;
        let member = group.members.get(member_id).filter(|member| member.epoch == epoch)?;
        let mut partitions = Vec::new();
        for topic in &member.topics {
            let readers: Vec<&String> =
                group.members.iter().filter(|(_, other)| other.topics.contains(topic)).map(|(id, _)| id).collect();
            let position = readers.iter().position(|id| *id == member_id)?;
            let range = range_of(position, readers.len(), partitions_of(*topic));
            partitions.extend(range.map(|partition| TopicPartition { topic: *topic, partition }));
        }
        partitions.sort_unstable();
        partitions.dedup();
        Some(Assignment { generation: group.generation, partitions })
    }
}

/// Kafka's range assignor: contiguous shares, the first members get one more. Topics read by the same members are
/// assigned alike, which is what joins of co-partitioned topics need.
fn range_of(position: usize, readers: usize, partitions: u32) -> std::ops::Range<u32> {
    let readers = u32::try_from(readers.max(1)).unwrap_or(u32::MAX);
    let position = u32::try_from(position).unwrap_or(u32::MAX);
    let (share, larger_shares) = (partitions / readers, partitions % readers);
    let start = position * share + position.min(larger_shares);
    start..start + share + u32::from(position < larger_shares)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_cover_all_partitions_once() {
        for partitions in 0..20 {
            for readers in 1..8 {
                let covered: Vec<u32> =
                    (0..readers).flat_map(|position| range_of(position, readers, partitions)).collect();
                assert_eq!(covered, (0..partitions).collect::<Vec<_>>());
            }
        }
    }

    #[test]
    fn a_replaced_member_neither_commits_nor_leaves_for_its_successor() {
        let mut groups = Groups::default();
        let older = groups.join("g", "a", &[Topic::Control]);
        let generation = groups.assignment("g", "a", older, |_| 1).unwrap().generation;
        let newer = groups.join("g", "a", &[Topic::Control]);
        let fence = |epoch| Fence { group: "g".into(), member_id: "a".into(), generation, epoch };
        assert!(!groups.admits(&fence(older)));
        assert!(groups.admits(&fence(newer)), "a restart under the same id keeps the generation");
        assert!(!groups.leave("g", "a", older));
        assert!(groups.assignment("g", "a", older, |_| 1).is_none());
        assert!(groups.leave("g", "a", newer));
    }
}
