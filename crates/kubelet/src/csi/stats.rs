//! How full a driver's volume is, and whether it is well, as the driver says.

use super::Wish;
use super::driver::Ability;
use super::messages::{AmountUsed, VolumeStats, VolumeStatsAnswer};
use crate::agent::Agent;
use crate::storage::ANSWER_MAX;
use crate::usage::{Amount, Usage};

/// CSI's number for bytes.
const BYTES: i32 = 1;
/// CSI's number for inodes.
const INODES: i32 = 2;

/// Asks the driver of a pod's volume; `None` where it does not know, or does not answer.
pub async fn usage(agent: &Agent, pod_uid: &str, wish: &Wish) -> Option<Usage> {
    let driver = agent.csi.driver(&wish.driver).filter(|driver| driver.can(Ability::Stats))?;
    let question = VolumeStats {
        volume_id: wish.handle.clone(),
        volume_path: wish.target(pod_uid).display().to_string(),
        staging_path: match driver.can(Ability::Stage) {
            true => wish.staging().display().to_string(),
            false => String::new(),
        },
    };
    let asked = driver.ask::<_, VolumeStatsAnswer>("NodeGetVolumeStats", &question);
    match agent.means.host.within(ANSWER_MAX, asked).await? {
        Ok(answer) => Some(read(&answer, driver.can(Ability::Condition))),
        Err(error) => {
            tracing::debug!(%error, volume = wish.name, "a driver does not say how full a volume is");
            None
        }
    }
}

fn read(answer: &VolumeStatsAnswer, tells_condition: bool) -> Usage {
    let count = |number: i64| u64::try_from(number).unwrap_or(0);
    let amount = |unit: i32| {
        let one: &AmountUsed = answer.usage.iter().find(|one| one.unit == unit)?;
        Some(Amount { available: count(one.available), total: count(one.total), used: count(one.used) })
    };
    let condition = answer.condition.as_ref().filter(|_| tells_condition);
    Usage {
        bytes: amount(BYTES),
        inodes: amount(INODES),
        condition: condition.map(|one| (one.is_abnormal, one.message.clone())),
    }
}

#[cfg(test)]
mod tests {
    use super::super::messages::VolumeCondition;
    use super::*;

    #[test]
    fn amounts_go_by_their_units_and_a_condition_counts_where_the_driver_tells_any() {
        let bytes = AmountUsed { available: 1, total: 3, used: 2, unit: BYTES };
        let condition = Some(VolumeCondition { is_abnormal: true, message: "worn".into() });
        let answer = VolumeStatsAnswer { usage: vec![bytes], condition };
        let told = read(&answer, true);
        assert_eq!(told.bytes, Some(Amount { available: 1, total: 3, used: 2 }));
        assert_eq!((told.inodes, told.condition), (None, Some((true, "worn".to_owned()))));
        assert_eq!(read(&answer, false).condition, None);
    }
}
