//! What the published schemas say in words, taken from those that `k8s-openapi` carries.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use k8s_openapi::schemars::{JsonSchema, SchemaGenerator, generate::SchemaSettings};
use serde_json::Value;

/// A type's own words, and those of its fields by JSON name.
#[derive(Debug, Default)]
pub struct Words {
    /// Of the type.
    pub own: String,
    /// Of its fields.
    pub fields: BTreeMap<String, String>,
}

/// The words of a type by its published name, such as `io.k8s.api.core.v1.Pod`.
pub fn of(name: &str) -> Option<&'static Words> {
    static PROSE: OnceLock<BTreeMap<String, Words>> = OnceLock::new();
    PROSE.get_or_init(gather).get(name)
}

fn gather() -> BTreeMap<String, Words> {
    let settings = SchemaSettings::openapi3().with(|settings| settings.meta_schema = None);
    let mut generator = settings.into_generator();
    roots(&mut generator);
    let definitions = generator.take_definitions(false);
    definitions.into_iter().map(|(name, schema)| (name, words(&schema))).collect()
}

fn words(schema: &Value) -> Words {
    let text = |value: &Value| value["description"].as_str().unwrap_or_default().to_owned();
    let fields = schema["properties"].as_object().into_iter().flatten();
    let fields =
        fields.map(|(name, field)| (name.clone(), text(field))).filter(|(_, words)| !words.is_empty());
    Words { own: text(schema), fields: fields.collect() }
}

/// Every type that is served; the types below them come along.
fn roots(generator: &mut SchemaGenerator) {
    use k8s_openapi::api::*;
    use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1 as extensions;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1 as meta;
    use k8s_openapi::kube_aggregator::pkg::apis::apiregistration::v1 as registration;
    macro_rules! say {
        ($($kind:ty),* $(,)?) => { $(say::<$kind>(generator);)* };
    }
    say!(
        core::v1::Pod,
        core::v1::Service,
        core::v1::ConfigMap,
        core::v1::Secret,
        core::v1::Namespace,
        core::v1::Node,
        core::v1::ServiceAccount,
        core::v1::Endpoints,
        core::v1::Event,
        core::v1::PersistentVolume,
        core::v1::PersistentVolumeClaim,
        core::v1::PodTemplate,
        core::v1::ReplicationController,
        core::v1::ResourceQuota,
        core::v1::LimitRange,
        core::v1::Binding,
        core::v1::ComponentStatus,
    );
    say!(
        apps::v1::Deployment,
        apps::v1::ReplicaSet,
        apps::v1::StatefulSet,
        apps::v1::DaemonSet,
        apps::v1::ControllerRevision,
        batch::v1::Job,
        batch::v1::CronJob,
        autoscaling::v1::HorizontalPodAutoscaler,
        autoscaling::v1::Scale,
        autoscaling::v2::HorizontalPodAutoscaler,
        policy::v1::PodDisruptionBudget,
        policy::v1::Eviction,
        coordination::v1::Lease,
        discovery::v1::EndpointSlice,
        events::v1::Event,
        networking::v1::Ingress,
        networking::v1::IngressClass,
        networking::v1::NetworkPolicy,
        networking::v1::ServiceCIDR,
        networking::v1::IPAddress,
        node::v1::RuntimeClass,
        scheduling::v1::PriorityClass,
    );
    say!(
        rbac::v1::Role,
        rbac::v1::ClusterRole,
        rbac::v1::RoleBinding,
        rbac::v1::ClusterRoleBinding,
        storage::v1::StorageClass,
        storage::v1::CSIDriver,
        storage::v1::CSINode,
        storage::v1::CSIStorageCapacity,
        storage::v1::VolumeAttachment,
        storage::v1::VolumeAttributesClass,
        certificates::v1::CertificateSigningRequest,
        admissionregistration::v1::ValidatingWebhookConfiguration,
        admissionregistration::v1::MutatingWebhookConfiguration,
        admissionregistration::v1::ValidatingAdmissionPolicy,
        admissionregistration::v1::ValidatingAdmissionPolicyBinding,
        flowcontrol::v1::FlowSchema,
        flowcontrol::v1::PriorityLevelConfiguration,
        resource::v1::DeviceClass,
        resource::v1::ResourceClaim,
        resource::v1::ResourceClaimTemplate,
        resource::v1::ResourceSlice,
    );
    say!(
        authentication::v1::TokenRequest,
        authentication::v1::TokenReview,
        authentication::v1::SelfSubjectReview,
        authorization::v1::SubjectAccessReview,
        authorization::v1::SelfSubjectAccessReview,
        authorization::v1::LocalSubjectAccessReview,
        authorization::v1::SelfSubjectRulesReview,
        extensions::CustomResourceDefinition,
        registration::APIService,
        meta::DeleteOptions,
        meta::Status,
        meta::ObjectMeta,
        meta::ListMeta,
        meta::LabelSelector,
    );
}

fn say<T: JsonSchema>(generator: &mut SchemaGenerator) {
    drop(generator.subschema_for::<T>());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_and_fields_are_described() {
        let pod = of("io.k8s.api.core.v1.PodSpec").expect("a published type");
        assert!(pod.own.starts_with("PodSpec is a description of a pod"), "{}", pod.own);
        assert!(
            pod.fields["containers"].starts_with("List of containers"),
            "{:?}",
            pod.fields.get("containers")
        );
    }
}
