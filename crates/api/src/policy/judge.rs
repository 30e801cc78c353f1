//! Asking validating policies about an act. Pure over a view.

use cel::{Budget, Error, Value};
use model::{Key, Tree, kinds};
use serde_json::json;

use super::compiled::{Binding, Compiled, Policy, Validation};
use super::{Asking, Policies, is_excluded, params, speak};
use crate::cel::{About, Asker, Held};
use crate::custom::usable;
use crate::hooks::matching::Target;
use crate::hooks::{Act, review};
use crate::patience::as_version;
use crate::refusal::{Cause, Reason, Refusal};
use crate::verbs::meta;

/// The longest value that is noted for the audit log, in bytes: upstream's.
const NOTE_LEN_MAX: usize = 10 * 1024;

/// What policies came to: their warnings and notes are told whether or not they let an act happen.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Judged {
    /// What the author is to be told.
    pub warnings: Vec<String>,
    /// What is to be noted in the audit log: keys and values.
    pub notes: Vec<(String, String)>,
    denied: Vec<Denial>,
}

/// Why an act may not happen.
#[derive(Debug, PartialEq, Eq)]
struct Denial {
    policy: String,
    binding: Option<String>,
    message: String,
    reason: String,
}

/// What one validation came to.
enum Decision {
    Admit,
    Deny { message: String, reason: String },
}

/// Asks all validating policies that an act concerns.
pub fn validate(policies: &Policies, act: &Act<'_>, object: Option<&Tree>, asking: &Asking<'_>) -> Judged {
    let mut judged = Judged::default();
    if is_excluded(act) {
        return judged;
    }
    for policy in &policies.validating {
        let target = match policy.matching.target(act, object, asking.registry, asking.world) {
            Ok(Some(target)) => target,
            Ok(None) => continue,
            Err(refusal) => {
                judged.misconfigured(policy, None, &refusal.message);
                continue;
            }
        };
        if let Err(why) = params::known(policy, asking) {
            judged.misconfigured(policy, None, &why);
            continue;
        }
        for binding in &policy.bindings {
            judged.bound((policy, binding), &target, act, object, asking);
        }
    }
    judged
}

impl Judged {
    /// Whether the act may happen.
    ///
    /// # Errors
    /// What the first policy that refuses it says.
    pub fn verdict(&self, act: &Act<'_>, object: Option<&Tree>) -> Result<(), Refusal> {
        self.denied.first().map_or(Ok(()), |denial| Err(denial.refusal(act, object)))
    }

    fn misconfigured(&mut self, policy: &Policy, binding: Option<&Binding>, why: &str) {
        if policy.ignorable {
            return;
        }
        let what = if binding.is_some() { "binding" } else { "policy" };
        self.denied.push(Denial {
            policy: policy.name.clone(),
            binding: binding.map(|binding| binding.name.clone()),
            message: format!("failed to configure {what}: {why}"),
            reason: String::new(),
        });
    }

    /// Asks a policy where one of its bindings holds.
    fn bound(
        &mut self,
        (policy, binding): (&Policy, &Binding),
        target: &Target,
        act: &Act<'_>,
        object: Option<&Tree>,
        asking: &Asking<'_>,
    ) {
        if let Some(matching) = &binding.matching {
            match matching.target(act, object, asking.registry, asking.world) {
                Ok(Some(_)) => {}
                Ok(None) => return,
                Err(refusal) => return self.misconfigured(policy, Some(binding), &refusal.message),
            }
        }
        let params = match params::of(policy, binding, act.namespace, asking) {
            Ok(params) => params,
            Err(why) => return self.misconfigured(policy, Some(binding), &why),
        };
        for param in &params {
            self.asked(policy, binding, &Case::new(target, act, object, param.as_ref(), asking));
        }
    }

    /// Asks a policy once.
    fn asked(&mut self, policy: &Policy, binding: &Binding, case: &Case<'_>) {
        let authorizer = case.asker();
        let about = case.about(policy, &authorizer);
        match policy.conditions.hold(&about) {
            Held::Yes => {}
            Held::No => return,
            Held::Unknown(why) => return self.decided(policy, binding, 0, undecided(policy, why)),
        }
        let names = speak::names(&about, &case.namespace, &policy.variables);
        let mut budget = Budget::new(cel::REQUEST_COST_MAX);
        for (index, validation) in policy.validations.iter().enumerate() {
            let decision = decide(policy, validation, &names, &mut budget);
            self.decided(policy, binding, index, decision);
        }
        let mut budget = Budget::new(cel::REQUEST_COST_MAX);
        for (key, program) in &policy.annotations {
            self.note(policy, binding, key, evaluate(program, &names, &mut budget));
        }
    }

    fn decided(&mut self, policy: &Policy, binding: &Binding, index: usize, decision: Decision) {
        let Decision::Deny { message, reason } = decision else { return };
        for action in &binding.actions {
            match action.as_str() {
                "Deny" => self.denied.push(Denial {
                    policy: policy.name.clone(),
                    binding: Some(binding.name.clone()),
                    message: message.clone(),
                    reason: reason.clone(),
                }),
                "Warn" => self.warnings.push(format!(
                    "Validation failed for ValidatingAdmissionPolicy '{}' with binding '{}': {message}",
                    policy.name, binding.name
                )),
                _ => {
                    let value = json!([{"message": message, "policy": policy.name, "binding": binding.name,
                        "expressionIndex": index, "validationActions": binding.actions}]);
                    self.notes.push((
                        "validation.policy.admission.k8s.io/validation_failure".into(),
                        value.to_string(),
                    ));
                }
            }
        }
    }

    fn note(&mut self, policy: &Policy, binding: &Binding, key: &str, value: Result<Value<'_>, String>) {
        let why = match value {
            Ok(Value::Null) => return,
            Ok(Value::Text(text)) => {
                let mut text = text.as_str().trim().to_owned();
                text.truncate(text.floor_char_boundary(NOTE_LEN_MAX));
                let note = (format!("{}/{key}", policy.name), text);
                if !note.1.is_empty() && !self.notes.contains(&note) {
                    self.notes.push(note);
                }
                return;
            }
            Ok(other) => format!(
                "valueExpression resulted in unsupported return type: {}. Return type must be either string or null.",
                other.type_name()
            ),
            Err(why) => why,
        };
        if !policy.ignorable {
            self.denied.push(Denial {
                policy: policy.name.clone(),
                binding: Some(binding.name.clone()),
                message: why,
                reason: String::new(),
            });
        }
    }
}

/// What a policy is asked about, in the version that it matches.
pub struct Case<'a> {
    object: Tree,
    old: Tree,
    request: Tree,
    /// The namespace of the object; null when it has none.
    pub namespace: Tree,
    param: Option<&'a Tree>,
    act: &'a Act<'a>,
    asking: &'a Asking<'a>,
}

impl<'a> Case<'a> {
    /// An act as a policy sees it.
    pub fn new(
        target: &Target,
        act: &'a Act<'a>,
        object: Option<&Tree>,
        param: Option<&'a Tree>,
        asking: &'a Asking<'a>,
    ) -> Self {
        let to = asking.registry.get(&target.gvr).map_or(act.resource, |resource| resource);
        let version = |object: Option<&Tree>| {
            object.map_or(Tree::Null, |object| {
                as_version(act.resource, to, object, asking.patience).into_owned()
            })
        };
        let is_namespace = act.resource.is(&kinds::NAMESPACE);
        let place = if is_namespace { "" } else { act.namespace };
        let namespace = asking.world.get(&Key::new(&kinds::NAMESPACE, "", place));
        Self {
            object: version(object),
            old: version(act.old),
            request: review::request(act, target),
            namespace: namespace.and_then(|namespace| namespace.tree().ok()).unwrap_or(Tree::Null),
            param,
            act,
            asking,
        }
    }

    /// Who answers what may be done.
    pub fn asker(&self) -> Asker<'_> {
        Asker { guard: self.asking.guard, identity: self.act.identity }
    }

    /// What expressions may speak of.
    pub fn about<'b>(&'b self, policy: &Policy, authorizer: &'b Asker<'b>) -> About<'b> {
        // A policy that has parameters and is given none sees null.
        let params = policy.param_kind.is_some().then_some(self.param.unwrap_or(&Tree::Null));
        About { object: &self.object, old: &self.old, request: &self.request, params, authorizer }
    }
}

/// What a policy says that cannot tell.
fn undecided(policy: &Policy, why: String) -> Decision {
    if policy.ignorable { Decision::Admit } else { Decision::Deny { message: why, reason: String::new() } }
}

fn decide(
    policy: &Policy,
    validation: &Validation,
    names: &[(&str, Value<'_>)],
    budget: &mut Budget,
) -> Decision {
    let text = &validation.text;
    match evaluate(&validation.program, names, budget) {
        Ok(Value::Bool(true)) => return Decision::Admit,
        Ok(_) => {}
        Err(why) => return undecided(policy, format!("expression '{text}' resulted in error: {why}")),
    }
    let made = validation.made.as_ref().and_then(|made| match evaluate(made, names, budget) {
        Ok(Value::Text(text)) => usable(text.as_str()),
        _ => None,
    });
    let said = Some(validation.message.clone()).filter(|message| !message.is_empty());
    let message = made.or(said).unwrap_or_else(|| format!("failed expression: {text}"));
    Decision::Deny { message, reason: validation.reason.clone() }
}

/// The value of an expression, or what is said of it.
pub fn evaluate<'a>(
    program: &Compiled,
    names: &[(&str, Value<'a>)],
    budget: &mut Budget,
) -> Result<Value<'a>, String> {
    let program = program.as_ref().map_err(Clone::clone)?;
    program.evaluate(names, budget).map_err(|error| match error {
        Error::TooCostly if budget.left() == 0 => {
            "validation failed due to running out of cost budget, no further validation rules will be run"
                .into()
        }
        error => error.to_string(),
    })
}

impl Denial {
    fn refusal(&self, act: &Act<'_>, object: Option<&Tree>) -> Refusal {
        let by = match &self.binding {
            Some(binding) => format!("ValidatingAdmissionPolicy '{}' with binding '{binding}'", self.policy),
            None => format!("ValidatingAdmissionPolicy '{}'", self.policy),
        };
        refuse(act, object, format!("{by} denied request: {}", self.message), &self.reason)
    }
}

/// A refusal by a policy.
pub fn refuse(act: &Act<'_>, object: Option<&Tree>, message: String, reason: &str) -> Refusal {
    let said = |field: &str| object.or(act.old).map_or("", |object| meta(object, field));
    // A name that is still to be made is not known.
    let names = [act.name, said("name"), said("generateName"), "Unknown"];
    let name = names.into_iter().find(|name| !name.is_empty()).unwrap_or_default();
    // As upstream, it is a refusal about a resource, whatever its reason.
    let mut about = act.resource.about(name);
    about.kind.clone_from(&about.resource);
    let mut refusal = Refusal::forbidden(&about, &message);
    refusal.reason = match reason {
        "Unauthorized" => Reason::Unauthorized,
        "Forbidden" => Reason::Forbidden,
        "RequestEntityTooLarge" => Reason::TooLarge,
        _ => Reason::Invalid,
    };
    refusal.causes.push(Cause { reason: String::new(), message, field: String::new() });
    refusal
}
