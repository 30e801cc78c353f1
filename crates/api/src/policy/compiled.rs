//! Policies and their bindings, read from the store and compiled once for each change.

use std::collections::BTreeMap;
use std::sync::Arc;

use cel::{Environment, Program, Type};
use model::tree::{items, text};
use model::{Gvr, Selector, Tree, kinds};
use store::{Range, Store, StoreError, Watch};

use super::matching::Matching;
use super::objects;
use super::speak::{self, Variable};
use crate::cel::Conditions;

/// All policies that have a binding, by name.
#[derive(Debug, Default)]
pub struct Policies {
    /// Those that refuse.
    pub validating: Vec<Arc<Policy>>,
    /// Those that change.
    pub mutating: Vec<Arc<Policy>>,
}

/// A policy with its bindings.
#[derive(Debug)]
pub struct Policy {
    /// Its name.
    pub name: String,
    /// By what it is known that it has not changed: its own version and those of its bindings.
    version: String,
    /// Whether what it cannot tell is let through.
    pub ignorable: bool,
    /// What it is asked about.
    pub matching: Matching,
    /// Whether it is asked at all.
    pub conditions: Conditions,
    /// What kind its parameters are of: version and kind.
    pub param_kind: Option<(String, String)>,
    /// What its expressions have in common.
    pub variables: Vec<Variable>,
    /// What it demands.
    pub validations: Vec<Validation>,
    /// What it notes for the audit log.
    pub annotations: Vec<(String, Compiled)>,
    /// What it changes.
    pub mutations: Vec<Mutation>,
    /// Whether it wants to be asked again when another changed the object after it.
    pub again: bool,
    /// Where it holds.
    pub bindings: Vec<Binding>,
}

/// An expression, or why there is none.
pub type Compiled = Result<Program, String>;

/// What a policy demands.
#[derive(Debug)]
pub struct Validation {
    /// What has to be true.
    pub program: Compiled,
    /// What makes the message.
    pub made: Option<Compiled>,
    /// The message.
    pub message: String,
    /// The expression as it was written.
    pub text: String,
    /// The reason of a refusal; empty for the usual one.
    pub reason: String,
}

/// What a policy changes.
#[derive(Debug)]
pub struct Mutation {
    /// Whether it is a JSON patch; else an apply configuration.
    pub patch: bool,
    /// What makes the change.
    pub program: Compiled,
}

/// Where a policy holds.
#[derive(Debug)]
pub struct Binding {
    /// Its name.
    pub name: String,
    /// What it is restricted to.
    pub matching: Option<Matching>,
    /// Which parameters it gives.
    pub params: Option<ParamRef>,
    /// What is done with what is refused: `Deny`, `Warn`, `Audit`.
    pub actions: Vec<String>,
}

/// Which parameters a binding gives.
#[derive(Debug)]
pub struct ParamRef {
    /// One by name; empty for a selection.
    pub name: String,
    /// In which namespace; empty for that of the object.
    pub namespace: String,
    /// Those of these labels.
    pub selector: Option<Selector>,
    /// Whether it is an error when there are none.
    pub needed: bool,
}

const KINDS: [&Gvr; 4] = [
    &kinds::VALIDATING_ADMISSION_POLICY,
    &kinds::VALIDATING_ADMISSION_POLICY_BINDING,
    &kinds::MUTATING_ADMISSION_POLICY,
    &kinds::MUTATING_ADMISSION_POLICY_BINDING,
];

/// A snapshot, and a place in the history from which to look for changes.
pub struct Reader {
    watches: Vec<Watch>,
    now: Arc<Policies>,
}

impl Reader {
    /// What there is now.
    pub fn new(store: &Store) -> Result<Self, StoreError> {
        let mut reader = Self { watches: Vec::new(), now: Arc::default() };
        reader.read(store)?;
        Ok(reader)
    }

    /// The policies, read anew when one came, changed or went.
    pub fn now(&mut self, store: &Store) -> Arc<Policies> {
        // Nothing to be read means that nothing changed; anything else, an error too, is a reason to look.
        if self.watches.iter_mut().any(|watch| !matches!(watch.try_next(), Ok(None)))
            && let Err(error) = self.read(store)
        {
            tracing::warn!(%error, "the policies could not be read again; those read before hold");
        }
        self.now.clone()
    }

    fn read(&mut self, store: &Store) -> Result<(), StoreError> {
        let (mut watches, mut all) = (Vec::new(), Vec::new());
        for gvr in KINDS {
            let range = Range { prefix: format!("/{gvr}/"), ..Range::default() };
            let page = store.list(&range)?;
            watches.push(store.watch(&range.prefix, page.revision)?);
            let trees =
                page.records.iter().filter_map(|record| serde_json::from_slice::<Tree>(&record.value).ok());
            all.push(trees.collect::<Vec<Tree>>());
        }
        let [validating, validating_bindings, mutating, mutating_bindings] = &all[..] else {
            unreachable!("four kinds were read just above")
        };
        self.now = Arc::new(Policies {
            validating: join(validating, validating_bindings, &self.now.validating),
            mutating: join(mutating, mutating_bindings, &self.now.mutating),
        });
        self.watches = watches;
        Ok(())
    }
}

/// Policies with their bindings; those that did not change are not compiled again.
fn join(policies: &[Tree], bindings: &[Tree], before: &[Arc<Policy>]) -> Vec<Arc<Policy>> {
    let mut bound: BTreeMap<&str, Vec<&Tree>> = BTreeMap::new();
    for binding in bindings {
        bound.entry(text(binding, "spec.policyName")).or_default().push(binding);
    }
    let mut all = Vec::new();
    for policy in policies {
        let Some(bindings) = bound.get(text(policy, "metadata.name")) else { continue };
        let version = version(policy, bindings);
        let known = before.iter().find(|known| known.version == version);
        all.push(known.cloned().unwrap_or_else(|| Arc::new(Policy { version, ..compile(policy, bindings) })));
    }
    all
}

fn version(policy: &Tree, bindings: &[&Tree]) -> String {
    let one =
        |object: &Tree| format!("{}@{} ", text(object, "metadata.uid"), object["metadata"]["generation"]);
    let spec = |object: &Tree| object["spec"].to_string();
    std::iter::once(&policy).chain(bindings).map(|object| one(object) + &spec(object)).collect()
}

/// Compiles a policy.
pub fn compile(policy: &Tree, bindings: &[&Tree]) -> Policy {
    let spec = &policy["spec"];
    let param_kind = spec["paramKind"]
        .is_object()
        .then(|| (text(spec, "paramKind.apiVersion").to_owned(), text(spec, "paramKind.kind").to_owned()));
    let params = param_kind.is_some();
    let (variables, environment) = speak::variables(spec, speak::environment(params));
    let without = speak::without_authorizer(&environment);
    let text_type = |of: &Type| matches!(of, Type::Text(_) | Type::Dyn | Type::Null);
    let validations = items(spec, "validations").iter().map(|one| Validation {
        program: expression(text(one, "expression"), &environment, |of| matches!(of, Type::Bool | Type::Dyn)),
        made: Some(text(one, "messageExpression"))
            .filter(|text| !text.trim().is_empty())
            .map(|text| expression(text, &without, text_type)),
        message: text(one, "message").trim().to_owned(),
        text: text(one, "expression").trim().to_owned(),
        reason: text(one, "reason").to_owned(),
    });
    let annotations = items(spec, "auditAnnotations").iter().map(|one| {
        (text(one, "key").to_owned(), expression(text(one, "valueExpression"), &environment, text_type))
    });
    let making = Environment { made: Some(objects::named), ..environment.clone() };
    let mutations = items(spec, "mutations").iter().map(|one| {
        let patch = text(one, "patchType") == "JSONPatch";
        let written = if patch { "jsonPatch.expression" } else { "applyConfiguration.expression" };
        Mutation {
            patch,
            program: expression(text(one, written), &making, |of| objects::is_change(of, patch)),
        }
    });
    let mut bindings: Vec<Binding> = bindings.iter().map(|binding| read_binding(binding)).collect();
    bindings.sort_by(|one, other| one.name.cmp(&other.name));
    Policy {
        name: text(policy, "metadata.name").to_owned(),
        version: String::new(),
        ignorable: text(spec, "failurePolicy") == "Ignore",
        matching: Matching::read(&spec["matchConstraints"]),
        conditions: Conditions::compile(items(spec, "matchConditions"), params),
        param_kind,
        validations: validations.collect(),
        annotations: annotations.collect(),
        mutations: mutations.collect(),
        variables,
        again: text(spec, "reinvocationPolicy") == "IfNeeded",
        bindings,
    }
}

fn expression(text: &str, environment: &Environment, fits: impl Fn(&Type) -> bool) -> Compiled {
    let program = Program::compile(text, environment)
        .map_err(|faulty| format!("compilation error: compilation failed: {faulty}"))?;
    if fits(program.gives()) {
        Ok(program)
    } else {
        Err("compilation error: it evaluates to a type that cannot be used here".into())
    }
}

fn read_binding(binding: &Tree) -> Binding {
    let spec = &binding["spec"];
    let given = &spec["paramRef"];
    let params = given.is_object().then(|| ParamRef {
        name: text(given, "name").to_owned(),
        namespace: text(given, "namespace").to_owned(),
        selector: given["selector"]
            .is_object()
            .then(|| Selector::of_tree(Some(&given["selector"])).unwrap_or_else(|_| Selector::nothing())),
        needed: text(given, "parameterNotFoundAction") != "Allow",
    });
    Binding {
        name: text(binding, "metadata.name").to_owned(),
        matching: spec["matchResources"].is_object().then(|| Matching::read(&spec["matchResources"])),
        params,
        actions: items(spec, "validationActions")
            .iter()
            .filter_map(Tree::as_str)
            .map(str::to_owned)
            .collect(),
    }
}
