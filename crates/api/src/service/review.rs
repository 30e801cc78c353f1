//! Reviews: questions about users, tokens and rights that are answered and not stored; and `bindings`.

use std::collections::BTreeMap;

use http::StatusCode;
use model::tree::{items, text};
use model::{FieldSelector, Selector, Tree, kinds};
use serde_json::{Value, json};

use super::Call;
use super::read::written;
use super::subresource::binding_name;
use crate::answer::Answer;
use crate::auth::{Attributes, Identity};
use crate::codec;
use crate::hooks::{Operation, user_info};
use crate::http::negotiate::View;
use crate::refusal::Refusal;
use crate::request::{WriteOptions, required_fields};
use crate::verbs::create::{check_namespace, set_type};

impl Call<'_> {
    pub(super) async fn review(&self) -> Result<Answer, Refusal> {
        let form = self.form_of(&[View::Object])?;
        if self.resource.is(&kinds::BINDING) {
            let dry_run = WriteOptions::read(&self.query, self.headers)?.dry_run;
            let binding = self.read_part()?;
            let binding = self.admitted_part(Operation::Create, "", binding, dry_run).await?;
            return Box::pin(self.redirected(&kinds::POD, binding_name(&binding)?)?.bind(&binding)).await;
        }
        let options = WriteOptions::read(&self.query, self.headers)?;
        let mut read = codec::read(&self.resource, &self.media(), self.body, options.validation)?;
        let review = &mut read.object;
        check_namespace(&self.resource, &self.target.namespace, review)?;
        set_type(&self.resource, review);
        *review = self.admitted_part(Operation::Create, "", review.take(), options.dry_run).await?;
        codec::check_alone(&self.resource, review)?;
        let status = self.answer_review(&review["spec"]).await;
        review["status"] = status?;
        Ok(written(StatusCode::CREATED, form.syntax, review).warned(&read.warnings))
    }

    async fn answer_review(&self, spec: &Tree) -> Result<Tree, Refusal> {
        let is = |gvr| self.resource.is(gvr);
        if is(&kinds::SELF_SUBJECT_REVIEW) {
            Ok(json!({"userInfo": user_info(self.identity)}))
        } else if is(&kinds::TOKEN_REVIEW) {
            self.review_token(spec).await
        } else if is(&kinds::SELF_SUBJECT_ACCESS_REVIEW) {
            Ok(self.review_access(self.identity, spec).await)
        } else if is(&kinds::SUBJECT_ACCESS_REVIEW) || is(&kinds::LOCAL_SUBJECT_ACCESS_REVIEW) {
            Ok(self.review_access(&subject(spec), spec).await)
        } else if is(&kinds::SELF_SUBJECT_RULES_REVIEW) {
            let namespace = spec["namespace"].as_str().unwrap_or_default();
            Ok(self.inner.settings.guard.rules_of(self.identity, namespace))
        } else {
            Err(Refusal::method_not_allowed())
        }
    }

    /// Who a token stands for: this cluster's own are looked at first, then those outside are asked.
    async fn review_token(&self, spec: &Tree) -> Result<Tree, Refusal> {
        let audiences = texts(&spec["audiences"]);
        let token = spec["token"].as_str().unwrap_or_default();
        if token.is_empty() {
            return Err(Refusal::bad_request("token is required for TokenReview in authentication"));
        }
        let guard = &self.inner.settings.guard;
        let mut known = guard.review(token, &audiences, self.inner.host.now());
        if let (Err(why), Some((outside, own))) = (&known, guard.outside()) {
            let wanted = if audiences.is_empty() { own } else { &audiences };
            let asked = outside.identify(token, wanted, own).await;
            known = asked.map_err(|other| format!("[{why}, {}]", other.trim_matches(['[', ']'])));
        }
        Ok(match known {
            Ok((who, audiences)) => {
                json!({"authenticated": true, "user": user_info(&who), "audiences": audiences})
            }
            Err(why) => json!({"authenticated": false, "user": {}, "error": why}),
        })
    }

    async fn review_access(&self, who: &Identity, spec: &Tree) -> Tree {
        let decision = self.inner.decide(who, &attributes(spec)).await;
        let mut status = json!({"allowed": decision.allowed});
        let errors = [not_understood(&spec["resourceAttributes"]), Some(decision.error)];
        let errors: Vec<String> = errors.into_iter().flatten().filter(|why| !why.is_empty()).collect();
        if !errors.is_empty() {
            status["evaluationError"] = json!(errors.join("; "));
        }
        if !decision.reason.is_empty() {
            status["reason"] = json!(decision.reason);
        }
        status
    }
}

/// What a review asks for.
fn attributes(spec: &Tree) -> Attributes {
    let text = |tree: &Tree, name: &str| text(tree, name).to_owned();
    let (resource, path) = (&spec["resourceAttributes"], &spec["nonResourceAttributes"]);
    if path.is_object() {
        return Attributes { verb: text(path, "verb"), path: text(path, "path"), ..Attributes::default() };
    }
    Attributes {
        verb: text(resource, "verb"),
        group: text(resource, "group"),
        version: match text(resource, "version").as_str() {
            "" => "*".to_owned(),
            version => version.to_owned(),
        },
        resource: text(resource, "resource"),
        subresource: text(resource, "subresource"),
        namespace: text(resource, "namespace"),
        name: text(resource, "name"),
        path: String::new(),
        fields: selected(&resource["fieldSelector"]),
        selectors: selectors(resource),
    }
}

/// The selectors of a review, as they are passed on; null where it has none.
fn selectors(resource: &Tree) -> Tree {
    let mut told = crate::request::selectors(
        Some(raw(resource, "fieldSelector")).filter(|text| !text.is_empty()),
        Some(raw(resource, "labelSelector")).filter(|text| !text.is_empty()),
    );
    for name in ["fieldSelector", "labelSelector"] {
        let terms = items(&resource[name], "requirements");
        if !terms.is_empty() {
            told[name] = json!({"requirements": terms});
        }
    }
    told
}

/// The fields that a review's selector asks to have certain values.
fn selected(selector: &Tree) -> Vec<(String, String)> {
    let mut fields = required_fields(text(selector, "rawSelector"));
    fields.extend(items(selector, "requirements").iter().filter_map(|term| {
        match (text(term, "operator"), items(term, "values")) {
            ("In", [value]) => Some((text(term, "key").to_owned(), value.as_str()?.to_owned())),
            _ => None,
        }
    }));
    fields
}

/// Which selectors of a review say something that nobody here understands: what they ask for beside it still counts.
fn not_understood(resource: &Tree) -> Option<String> {
    let is_field =
        |term: &Tree| matches!(text(term, "operator"), "In" | "NotIn") && items(term, "values").len() == 1;
    let is_label = |term: &Tree| matches!(text(term, "operator"), "In" | "NotIn" | "Exists" | "DoesNotExist");
    let told = [
        (
            "fieldSelector",
            FieldSelector::parse(raw(resource, "fieldSelector")).is_ok(),
            &is_field as &dyn Fn(&Tree) -> bool,
        ),
        ("labelSelector", Selector::parse(raw(resource, "labelSelector")).is_ok(), &is_label),
    ];
    let told: Vec<String> = told
        .into_iter()
        .filter_map(|(field, is_raw_good, is_good)| {
            let terms = items(&resource[field], "requirements");
            let partially = match terms.iter().filter(|term| is_good(term)).count() {
                good if is_raw_good && good == terms.len() => return None,
                0 => "",
                _ => "partially ",
            };
            Some(format!("spec.resourceAttributes.{field} {partially}ignored due to parse error"))
        })
        .collect();
    (!told.is_empty()).then(|| told.join("; "))
}

fn raw<'a>(resource: &'a Tree, field: &str) -> &'a str {
    text(&resource[field], "rawSelector")
}

fn subject(spec: &Tree) -> Identity {
    let extra = spec["extra"].as_object().into_iter().flatten();
    Identity {
        name: spec["user"].as_str().unwrap_or_default().to_owned(),
        uid: spec["uid"].as_str().unwrap_or_default().to_owned(),
        groups: texts(&spec["groups"]),
        extra: extra.map(|(key, values)| (key.clone(), texts(values))).collect::<BTreeMap<_, _>>(),
    }
}

fn texts(list: &Tree) -> Vec<String> {
    list.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(resource: Tree, wanted: Option<&str>) {
        let told = not_understood(&resource);
        let wanted = wanted.map(|wanted| format!("spec.resourceAttributes.{wanted} due to parse error"));
        assert_eq!(told, wanted, "{resource}");
    }

    #[test]
    fn what_is_not_understood_of_a_selector_is_told_and_the_rest_counts() {
        let good = json!({"key": "a", "operator": "In", "values": ["b"]});
        let later = json!({"key": "a", "operator": "Later", "values": ["b"]});
        let fields = |terms: &[&Tree]| json!({"fieldSelector": {"requirements": terms}});
        check(json!({}), None);
        check(
            json!({"fieldSelector": {"rawSelector": "a=b,c!=d"}, "labelSelector": {"rawSelector": "a in (b)"}}),
            None,
        );
        check(json!({"fieldSelector": {"rawSelector": "a=b,rubbish"}}), Some("fieldSelector ignored"));
        check(json!({"labelSelector": {"rawSelector": "a in b"}}), Some("labelSelector ignored"));
        check(fields(&[&good]), None);
        check(fields(&[&good, &later]), Some("fieldSelector partially ignored"));
        check(fields(&[&json!({"key": "a", "operator": "Exists"})]), Some("fieldSelector ignored"));
        check(json!({"labelSelector": {"requirements": [{"key": "a", "operator": "Exists"}]}}), None);
        assert_eq!(selected(&fields(&[&good, &later])["fieldSelector"]), [("a".to_owned(), "b".to_owned())]);
    }
}
