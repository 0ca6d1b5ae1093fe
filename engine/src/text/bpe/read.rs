//! The model of a `tokenizer.json`, read as it comes.
//!
//! Its two tables are most of the file. They go from the text straight into
//! [`Vocabulary`] and [`Merges`]; nothing holds them as JSON, unless the model
//! turns out to be of a kind that is left to the `tokenizers` library.

use std::borrow::Cow;
use std::fmt;

use serde::de::value::SeqAccessDeserializer;
use serde::de::{DeserializeSeed, Error as _, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value, json};
use tokenizers::ModelWrapper;

use super::super::tokenizer::TokenModel;
use super::merges::{Merges, Rule};
use super::vocabulary::Vocabulary;
use super::{Bpe, Settings};

/// A string, borrowed from the JSON where it has no escapes.
#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

impl<'de> Deserialize<'de> for TokenModel {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(ModelVisitor)
    }
}

struct ModelVisitor;

impl<'de> Visitor<'de> for ModelVisitor {
    type Value = TokenModel;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a tokenizer's model")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<TokenModel, A::Error> {
        let mut rest = Map::new();
        let mut vocabulary = None;
        let mut rules = None;
        while let Some(key) = map.next_key::<String>()? {
            match (key.as_str(), &vocabulary) {
                ("vocab", _) => match map.next_value()? {
                    Table::Tokens(tokens) => vocabulary = Some(tokens),
                    Table::Other(value) => drop(rest.insert(key, value)),
                },
                ("merges", Some(vocabulary)) => {
                    rules = Some(map.next_value_seed(Rules(vocabulary))?);
                }
                _ => drop(rest.insert(key, map.next_value()?)),
            }
        }
        let Some(vocabulary) = vocabulary else {
            return library(rest);
        };
        if rules.is_none()
            && let Some(merges) = rest.remove("merges")
        {
            // They came before the vocabulary.
            let found = Rules(&vocabulary).deserialize(merges);
            rules = Some(found.map_err(A::Error::custom)?);
        }
        if let (Some(rules), Some(settings)) = (&rules, settings(&rest)) {
            let merges = Merges::new(rules, vocabulary.len());
            let model = Bpe::new(vocabulary, merges, settings);
            return Ok(TokenModel::Bpe(Box::new(model)));
        }
        let tokens = vocabulary.iter();
        let tokens: Map<_, _> = tokens.map(|(t, id)| (t.to_owned(), id.into())).collect();
        rest.insert("vocab".to_owned(), tokens.into());
        if let Some(rules) = rules {
            let pair =
                |rule: &Rule| json!([vocabulary.token(rule.left), vocabulary.token(rule.right)]);
            rest.insert("merges".to_owned(), rules.iter().map(pair).collect());
        }
        library(rest)
    }
}

/// The library's own model.
fn library<E: serde::de::Error>(model: Map<String, Value>) -> Result<TokenModel, E> {
    ModelWrapper::deserialize(Value::Object(model))
        .map(|model| TokenModel::Library(Box::new(model)))
        .map_err(E::custom)
}

/// The settings of a BPE, if they are ones that [`Bpe`] knows.
fn settings(model: &Map<String, Value>) -> Option<Settings> {
    let flag = |name| match model.get(name) {
        None | Some(Value::Null) => Some(false),
        Some(value) => value.as_bool(),
    };
    let text = |name| match model.get(name) {
        None | Some(Value::Null) => Some(None),
        Some(value) => Some(Some(value.as_str()?.to_owned())),
    };
    let kind = text("type")?;
    let plain = kind.is_none_or(|kind| kind == "BPE")
        && model.get("dropout").is_none_or(Value::is_null)
        && text("continuing_subword_prefix")?.is_none_or(|prefix| prefix.is_empty())
        && text("end_of_word_suffix")?.is_none_or(|suffix| suffix.is_empty());
    plain.then_some(Settings {
        unk_token: text("unk_token")?,
        fuse_unk: flag("fuse_unk")?,
        byte_fallback: flag("byte_fallback")?,
        ignore_merges: flag("ignore_merges")?,
    })
}

/// What `vocab` is: tokens with their ids, or (Unigram) something else.
enum Table {
    Tokens(Vocabulary),
    Other(Value),
}

impl<'de> Deserialize<'de> for Table {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TableVisitor)
    }
}

struct TableVisitor;

impl<'de> Visitor<'de> for TableVisitor {
    type Value = Table;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a vocabulary")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Table, A::Error> {
        let mut vocabulary = Vocabulary::default();
        while let Some((Text(token), id)) = map.next_entry()? {
            if !vocabulary.push(&token, id) {
                return Err(A::Error::custom("the vocabulary is longer than 4 GB"));
            }
        }
        vocabulary.index();
        Ok(Table::Tokens(vocabulary))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Table, A::Error> {
        Value::deserialize(SeqAccessDeserializer::new(seq)).map(Table::Other)
    }
}

/// Reads `merges`: `"left right"` or `["left", "right"]` each.
struct Rules<'a>(&'a Vocabulary);

impl<'de> DeserializeSeed<'de> for Rules<'_> {
    type Value = Vec<Rule>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Vec<Rule>, D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Rules<'_> {
    type Value = Vec<Rule>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of merges")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Vec<Rule>, A::Error> {
        let mut rules = Vec::new();
        let mut product = String::new();
        while let Some(rule) = seq.next_element_seed(OneRule {
            vocabulary: self.0,
            product: &mut product,
        })? {
            rules.extend(rule);
        }
        Ok(rules)
    }
}

struct OneRule<'a> {
    vocabulary: &'a Vocabulary,
    /// Of no meaning before: memory to put two tokens together in.
    product: &'a mut String,
}

impl OneRule<'_> {
    fn rule<E: serde::de::Error>(self, left: &str, right: &str) -> Result<Option<Rule>, E> {
        self.product.clear();
        self.product.push_str(left);
        self.product.push_str(right);
        let find = |token: &str| {
            let index = self.vocabulary.find(token);
            index.ok_or_else(|| {
                E::custom(format!(
                    "the merge of {left:?} and {right:?}: {token:?} is not in the vocabulary"
                ))
            })
        };
        Ok(Some(Rule {
            left: find(left)?,
            right: find(right)?,
            product: find(self.product)?,
        }))
    }
}

impl<'de> DeserializeSeed<'de> for OneRule<'_> {
    type Value = Option<Rule>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Option<Rule>, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for OneRule<'_> {
    /// None for the line that a list of merges may begin with.
    type Value = Option<Rule>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a merge: two tokens")
    }

    fn visit_str<E: serde::de::Error>(self, merge: &str) -> Result<Option<Rule>, E> {
        if merge.starts_with("#version") {
            return Ok(None);
        }
        match merge.split_once(' ') {
            Some((left, right)) if !right.contains(' ') => self.rule(left, right),
            _ => Err(E::custom(format!("the merge {merge:?} is not two tokens"))),
        }
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Option<Rule>, A::Error> {
        let (left, right) = (
            seq.next_element::<Text<'_>>()?,
            seq.next_element::<Text<'_>>()?,
        );
        match (left, right, seq.next_element::<Text<'_>>()?) {
            (Some(Text(left)), Some(Text(right)), None) => self.rule(&left, &right),
            _ => Err(A::Error::custom("a merge is not two tokens")),
        }
    }
}
