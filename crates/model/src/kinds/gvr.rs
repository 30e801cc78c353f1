//! The resources that are built in, by name. They are constants of the API and never change at run time.

use crate::Gvr;

/// Declares a static for each resource, and in [`of`] a constant of the same name.
macro_rules! resources {
    ($($name:ident = $group:literal $version:literal $plural:literal;)*) => {
        $(
            #[doc = concat!("`", $plural, "` of `", $group, "/", $version, "`.")]
            pub static $name: Gvr = of::$name;
        )*

        /// Every built-in resource.
        pub static ALL: &[&Gvr] = &[$(&$name),*];

        /// The same resources as constants, for use in other constants.
        pub mod of {
            use crate::Gvr;

            $(
                #[doc = concat!("`", $plural, "` of `", $group, "/", $version, "`.")]
                pub const $name: Gvr = Gvr::new($group, $version, $plural);
            )*
        }
    };
}

resources! {
    BINDING = "" "v1" "bindings";
    COMPONENT_STATUS = "" "v1" "componentstatuses";
    CONFIG_MAP = "" "v1" "configmaps";
    ENDPOINTS = "" "v1" "endpoints";
    EVENT = "" "v1" "events";
    LIMIT_RANGE = "" "v1" "limitranges";
    NAMESPACE = "" "v1" "namespaces";
    NODE = "" "v1" "nodes";
    PERSISTENT_VOLUME_CLAIM = "" "v1" "persistentvolumeclaims";
    PERSISTENT_VOLUME = "" "v1" "persistentvolumes";
    POD = "" "v1" "pods";
    POD_TEMPLATE = "" "v1" "podtemplates";
    REPLICATION_CONTROLLER = "" "v1" "replicationcontrollers";
    RESOURCE_QUOTA = "" "v1" "resourcequotas";
    SECRET = "" "v1" "secrets";
    SERVICE_ACCOUNT = "" "v1" "serviceaccounts";
    SERVICE = "" "v1" "services";
    API_SERVICE = "apiregistration.k8s.io" "v1" "apiservices";
    CONTROLLER_REVISION = "apps" "v1" "controllerrevisions";
    DAEMON_SET = "apps" "v1" "daemonsets";
    DEPLOYMENT = "apps" "v1" "deployments";
    REPLICA_SET = "apps" "v1" "replicasets";
    STATEFUL_SET = "apps" "v1" "statefulsets";
    EVENTS_EVENT = "events.k8s.io" "v1" "events";
    SELF_SUBJECT_REVIEW = "authentication.k8s.io" "v1" "selfsubjectreviews";
    TOKEN_REVIEW = "authentication.k8s.io" "v1" "tokenreviews";
    LOCAL_SUBJECT_ACCESS_REVIEW = "authorization.k8s.io" "v1" "localsubjectaccessreviews";
    SELF_SUBJECT_ACCESS_REVIEW = "authorization.k8s.io" "v1" "selfsubjectaccessreviews";
    SELF_SUBJECT_RULES_REVIEW = "authorization.k8s.io" "v1" "selfsubjectrulesreviews";
    SUBJECT_ACCESS_REVIEW = "authorization.k8s.io" "v1" "subjectaccessreviews";
    HORIZONTAL_POD_AUTOSCALER = "autoscaling" "v2" "horizontalpodautoscalers";
    HORIZONTAL_POD_AUTOSCALER_V1 = "autoscaling" "v1" "horizontalpodautoscalers";
    CRON_JOB = "batch" "v1" "cronjobs";
    JOB = "batch" "v1" "jobs";
    CERTIFICATE_SIGNING_REQUEST = "certificates.k8s.io" "v1" "certificatesigningrequests";
    CLUSTER_TRUST_BUNDLE = "certificates.k8s.io" "v1beta1" "clustertrustbundles";
    POD_CERTIFICATE_REQUEST = "certificates.k8s.io" "v1beta1" "podcertificaterequests";
    CLUSTER_TRUST_BUNDLE_V1ALPHA1 = "certificates.k8s.io" "v1alpha1" "clustertrustbundles";
    INGRESS_CLASS = "networking.k8s.io" "v1" "ingressclasses";
    INGRESS = "networking.k8s.io" "v1" "ingresses";
    IP_ADDRESS = "networking.k8s.io" "v1" "ipaddresses";
    NETWORK_POLICY = "networking.k8s.io" "v1" "networkpolicies";
    SERVICE_CIDR = "networking.k8s.io" "v1" "servicecidrs";
    IP_ADDRESS_V1BETA1 = "networking.k8s.io" "v1beta1" "ipaddresses";
    SERVICE_CIDR_V1BETA1 = "networking.k8s.io" "v1beta1" "servicecidrs";
    POD_DISRUPTION_BUDGET = "policy" "v1" "poddisruptionbudgets";
    CLUSTER_ROLE_BINDING = "rbac.authorization.k8s.io" "v1" "clusterrolebindings";
    CLUSTER_ROLE = "rbac.authorization.k8s.io" "v1" "clusterroles";
    ROLE_BINDING = "rbac.authorization.k8s.io" "v1" "rolebindings";
    ROLE = "rbac.authorization.k8s.io" "v1" "roles";
    CSI_DRIVER = "storage.k8s.io" "v1" "csidrivers";
    CSI_NODE = "storage.k8s.io" "v1" "csinodes";
    CSI_STORAGE_CAPACITY = "storage.k8s.io" "v1" "csistoragecapacities";
    STORAGE_CLASS = "storage.k8s.io" "v1" "storageclasses";
    VOLUME_ATTACHMENT = "storage.k8s.io" "v1" "volumeattachments";
    VOLUME_ATTRIBUTES_CLASS = "storage.k8s.io" "v1" "volumeattributesclasses";
    VOLUME_ATTRIBUTES_CLASS_V1BETA1 = "storage.k8s.io" "v1beta1" "volumeattributesclasses";
    MUTATING_ADMISSION_POLICY = "admissionregistration.k8s.io" "v1" "mutatingadmissionpolicies";
    MUTATING_ADMISSION_POLICY_BINDING = "admissionregistration.k8s.io" "v1" "mutatingadmissionpolicybindings";
    MUTATING_WEBHOOK_CONFIGURATION = "admissionregistration.k8s.io" "v1" "mutatingwebhookconfigurations";
    VALIDATING_ADMISSION_POLICY = "admissionregistration.k8s.io" "v1" "validatingadmissionpolicies";
    VALIDATING_ADMISSION_POLICY_BINDING = "admissionregistration.k8s.io" "v1" "validatingadmissionpolicybindings";
    VALIDATING_WEBHOOK_CONFIGURATION = "admissionregistration.k8s.io" "v1" "validatingwebhookconfigurations";
    MUTATING_ADMISSION_POLICY_V1BETA1 = "admissionregistration.k8s.io" "v1beta1" "mutatingadmissionpolicies";
    MUTATING_ADMISSION_POLICY_BINDING_V1BETA1 = "admissionregistration.k8s.io" "v1beta1" "mutatingadmissionpolicybindings";
    MUTATING_ADMISSION_POLICY_V1ALPHA1 = "admissionregistration.k8s.io" "v1alpha1" "mutatingadmissionpolicies";
    MUTATING_ADMISSION_POLICY_BINDING_V1ALPHA1 = "admissionregistration.k8s.io" "v1alpha1" "mutatingadmissionpolicybindings";
    CUSTOM_RESOURCE_DEFINITION = "apiextensions.k8s.io" "v1" "customresourcedefinitions";
    PRIORITY_CLASS = "scheduling.k8s.io" "v1" "priorityclasses";
    POD_GROUP = "scheduling.k8s.io" "v1alpha2" "podgroups";
    WORKLOAD = "scheduling.k8s.io" "v1alpha2" "workloads";
    LEASE = "coordination.k8s.io" "v1" "leases";
    LEASE_CANDIDATE = "coordination.k8s.io" "v1beta1" "leasecandidates";
    LEASE_CANDIDATE_V1ALPHA2 = "coordination.k8s.io" "v1alpha2" "leasecandidates";
    RUNTIME_CLASS = "node.k8s.io" "v1" "runtimeclasses";
    ENDPOINT_SLICE = "discovery.k8s.io" "v1" "endpointslices";
    DEVICE_CLASS = "resource.k8s.io" "v1" "deviceclasses";
    RESOURCE_CLAIM = "resource.k8s.io" "v1" "resourceclaims";
    RESOURCE_CLAIM_TEMPLATE = "resource.k8s.io" "v1" "resourceclaimtemplates";
    RESOURCE_SLICE = "resource.k8s.io" "v1" "resourceslices";
    DEVICE_CLASS_V1BETA2 = "resource.k8s.io" "v1beta2" "deviceclasses";
    DEVICE_TAINT_RULE = "resource.k8s.io" "v1beta2" "devicetaintrules";
    RESOURCE_CLAIM_V1BETA2 = "resource.k8s.io" "v1beta2" "resourceclaims";
    RESOURCE_CLAIM_TEMPLATE_V1BETA2 = "resource.k8s.io" "v1beta2" "resourceclaimtemplates";
    RESOURCE_SLICE_V1BETA2 = "resource.k8s.io" "v1beta2" "resourceslices";
    DEVICE_CLASS_V1BETA1 = "resource.k8s.io" "v1beta1" "deviceclasses";
    RESOURCE_CLAIM_V1BETA1 = "resource.k8s.io" "v1beta1" "resourceclaims";
    RESOURCE_CLAIM_TEMPLATE_V1BETA1 = "resource.k8s.io" "v1beta1" "resourceclaimtemplates";
    RESOURCE_SLICE_V1BETA1 = "resource.k8s.io" "v1beta1" "resourceslices";
    DEVICE_TAINT_RULE_V1ALPHA3 = "resource.k8s.io" "v1alpha3" "devicetaintrules";
    RESOURCE_POOL_STATUS_REQUEST = "resource.k8s.io" "v1alpha3" "resourcepoolstatusrequests";
    FLOW_SCHEMA = "flowcontrol.apiserver.k8s.io" "v1" "flowschemas";
    PRIORITY_LEVEL_CONFIGURATION = "flowcontrol.apiserver.k8s.io" "v1" "prioritylevelconfigurations";
    STORAGE_VERSION = "internal.apiserver.k8s.io" "v1alpha1" "storageversions";
    STORAGE_VERSION_MIGRATION = "storagemigration.k8s.io" "v1beta1" "storageversionmigrations";
    REPAIR = "healing.kintsugi.dev" "v1alpha1" "repairs";
    VOTER_SET = "healing.kintsugi.dev" "v1alpha1" "votersets";
}
