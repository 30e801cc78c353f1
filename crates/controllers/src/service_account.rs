//! ServiceAccounts: every namespace has one called `default`, so that pods have someone to be.

use model::kinds::{NAMESPACE, SERVICE_ACCOUNT, of};
use model::{Controller, Key, Plan, Time, Watch, World};
use serde_json::json;

/// The name of the account that pods have when they name none.
const DEFAULT: &str = "default";

/// The controller.
pub static CONTROLLER: Controller = Controller {
    name: "service-account-controller",
    primary: of::NAMESPACE,
    also: &[Watch {
        gvr: of::SERVICE_ACCOUNT,
        wakes: |account, _| match account.name() {
            DEFAULT => vec![Key::new(&NAMESPACE, "", account.namespace())],
            _ => Vec::new(),
        },
    }],
    reconcile,
};

/// Decides on one namespace.
pub fn reconcile(key: &Key, world: &dyn World, _now: Time) -> Plan {
    let mut plan = Plan::default();
    let Some(namespace) = world.get(key).filter(|namespace| !namespace.is_ending()) else { return plan };
    let account = Key::new(&SERVICE_ACCOUNT, namespace.name(), DEFAULT);
    if world.get(&account).is_none() {
        let object = json!({
            "apiVersion": "v1", "kind": "ServiceAccount",
            "metadata": {"name": DEFAULT, "namespace": namespace.name()},
        });
        plan.create(&SERVICE_ACCOUNT, namespace.name(), object, "the namespace has no default account");
    }
    plan
}

#[cfg(test)]
mod tests {
    use model::tiny::check;

    use super::*;

    #[test]
    fn every_namespace_has_a_default_account_until_it_ends() {
        let decide = |world: &dyn World, now| reconcile(&Key::new(&NAMESPACE, "", "shop"), world, now);
        check("namespaces shop", 0, decide, "create serviceaccounts shop/default");
        check("namespaces shop\n serviceaccounts shop/default", 0, decide, "");
        check("namespaces shop ending@1", 2, decide, "");
    }
}
