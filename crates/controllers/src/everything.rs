//! Every kind that is built in and stored, for the two controllers that care for all of them.
//!
//! Custom resources are not known here: whoever runs the controllers in [`crate::EVERYWHERE`] applies their rules
//! ([`crate::garbage::wakes`], [`crate::namespace::wakes`]) to those as well.

/// Watches of every stored kind, each with the rule `fn(&Gvr, &Object, &dyn World) -> Vec<Key>`.
macro_rules! watch_everything {
    ($rule:path) => {
        $crate::everything::watch_everything!(@each $rule;
            CONFIG_MAP ENDPOINTS LIMIT_RANGE PERSISTENT_VOLUME_CLAIM POD POD_TEMPLATE REPLICATION_CONTROLLER
            RESOURCE_QUOTA SECRET SERVICE_ACCOUNT SERVICE CONTROLLER_REVISION DAEMON_SET DEPLOYMENT REPLICA_SET
            STATEFUL_SET HORIZONTAL_POD_AUTOSCALER CRON_JOB JOB INGRESS NETWORK_POLICY POD_DISRUPTION_BUDGET
            ROLE_BINDING ROLE CSI_STORAGE_CAPACITY LEASE ENDPOINT_SLICE RESOURCE_CLAIM RESOURCE_CLAIM_TEMPLATE
            NAMESPACE NODE PERSISTENT_VOLUME API_SERVICE CERTIFICATE_SIGNING_REQUEST INGRESS_CLASS IP_ADDRESS
            SERVICE_CIDR CLUSTER_ROLE_BINDING CLUSTER_ROLE CSI_DRIVER CSI_NODE STORAGE_CLASS VOLUME_ATTACHMENT
            VOLUME_ATTRIBUTES_CLASS MUTATING_WEBHOOK_CONFIGURATION VALIDATING_WEBHOOK_CONFIGURATION
            VALIDATING_ADMISSION_POLICY VALIDATING_ADMISSION_POLICY_BINDING CUSTOM_RESOURCE_DEFINITION PRIORITY_CLASS
            RUNTIME_CLASS DEVICE_CLASS RESOURCE_SLICE FLOW_SCHEMA PRIORITY_LEVEL_CONFIGURATION)
    };
    (@each $rule:path; $($name:ident)*) => {
        &[$(model::Watch {
            gvr: model::kinds::of::$name,
            wakes: |object, world| $rule(&model::kinds::$name, object, world),
        }),*]
    };
}

pub(crate) use watch_everything;
