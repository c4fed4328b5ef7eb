//! Pure: no I/O, no clock, no async.
//!
//! Arithmetic over metrics: `+ - * /`, parentheses, numbers, metric names. Division by zero has no value.

use std::collections::BTreeSet;

/// A parsed expression.
#[derive(Clone, Debug, PartialEq)]
pub struct Expression {
    root: Node,
}

#[derive(Clone, Debug, PartialEq)]
enum Node {
    Number(f64),
    Metric(String),
    Negate(Box<Node>),
    Binary(char, Box<Node>, Box<Node>),
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message} at character {position} of the expression")]
pub struct ExpressionError {
    pub message: String,
    /// Counted from 1.
    pub position: usize,
}

const MAX_LENGTH: usize = 1_000;
const MAX_DEPTH: usize = 32;

impl Expression {
    /// # Errors
    /// Not an expression: where and why.
    pub fn parse(text: &str) -> Result<Self, ExpressionError> {
        let mut parser = Parser { text, at: 0, depth: 0 };
        if text.len() > MAX_LENGTH {
            return Err(parser.error("longer than 1,000 bytes"));
        }
        let root = parser.sum()?;
        parser.skip_blanks();
        if parser.at < text.len() { Err(parser.error("an operator is expected")) } else { Ok(Self { root }) }
    }

    /// Names of the metrics it needs, sorted.
    #[must_use]
    pub fn metrics(&self) -> Vec<String> {
        fn walk(node: &Node, names: &mut BTreeSet<String>) {
            match node {
                Node::Number(_) => {}
                Node::Metric(name) => {
                    names.insert(name.clone());
                }
                Node::Negate(inner) => walk(inner, names),
                Node::Binary(_, left, right) => {
                    walk(left, names);
                    walk(right, names);
                }
            }
        }
        let mut names = BTreeSet::new();
        walk(&self.root, &mut names);
        names.into_iter().collect()
    }

    /// `None` when a metric has no value or something is divided by zero.
    pub fn evaluate(&self, value_of: &dyn Fn(&str) -> Option<f64>) -> Option<f64> {
        fn walk(node: &Node, value_of: &dyn Fn(&str) -> Option<f64>) -> Option<f64> {
            let value = match node {
                Node::Number(number) => *number,
                Node::Metric(name) => value_of(name)?,
                Node::Negate(inner) => -walk(inner, value_of)?,
                Node::Binary(operator, left, right) => {
                    let (left, right) = (walk(left, value_of)?, walk(right, value_of)?);
                    match operator {
                        '+' => left + right,
                        '-' => left - right,
                        '*' => left * right,
                        _ => left / right,
                    }
                }
            };
            value.is_finite().then_some(value)
        }
        walk(&self.root, value_of)
    }
}

/// With no parentheses but those that are needed.
#[cfg(any(test, fuzzing))]
impl std::fmt::Display for Expression {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        /// How tightly the operators around a node bind: 0 sums, 1 products, 2 a sign.
        fn write(f: &mut std::fmt::Formatter<'_>, node: &Node, outer: u8) -> std::fmt::Result {
            match node {
                Node::Number(number) => write!(f, "{number}"),
                Node::Metric(name) => f.write_str(name),
                Node::Negate(inner) => {
                    f.write_str("-")?;
                    write(f, inner, 2)
                }
                Node::Binary(operator, left, right) => {
                    let own = u8::from(matches!(operator, '*' | '/'));
                    let is_enclosed = own < outer;
                    f.write_str(if is_enclosed { "(" } else { "" })?;
                    write(f, left, own)?;
                    write!(f, " {operator} ")?;
                    write(f, right, own + 1)?;
                    f.write_str(if is_enclosed { ")" } else { "" })
                }
            }
        }
        write(f, &self.root, 0)
    }
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
    depth: usize,
}

impl Parser<'_> {
    fn error(&self, message: &str) -> ExpressionError {
        let position = self.text.get(..self.at).map_or(self.at, |before| before.chars().count()) + 1;
        ExpressionError { message: message.to_owned(), position }
    }

    fn skip_blanks(&mut self) {
        while self.peek().is_some_and(|next| next.is_ascii_whitespace()) {
            self.at += 1;
        }
    }

    fn peek(&self) -> Option<char> {
        self.text.get(self.at..)?.chars().next()
    }

    fn take(&mut self, wanted: &[char]) -> Option<char> {
        self.skip_blanks();
        let next = self.peek().filter(|next| wanted.contains(next))?;
        self.at += next.len_utf8();
        Some(next)
    }

    fn sum(&mut self) -> Result<Node, ExpressionError> {
        let mut left = self.product()?;
        while let Some(operator) = self.take(&['+', '-']) {
            left = Node::Binary(operator, Box::new(left), Box::new(self.product()?));
        }
        Ok(left)
    }

    fn product(&mut self) -> Result<Node, ExpressionError> {
        let mut left = self.atom()?;
        while let Some(operator) = self.take(&['*', '/']) {
            left = Node::Binary(operator, Box::new(left), Box::new(self.atom()?));
        }
        Ok(left)
    }

    fn atom(&mut self) -> Result<Node, ExpressionError> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(self.error("nested too deeply"));
        }
        let node = self.atom_within();
        self.depth -= 1;
        node
    }

    fn atom_within(&mut self) -> Result<Node, ExpressionError> {
        if self.take(&['-']).is_some() {
            return Ok(Node::Negate(Box::new(self.atom()?)));
        }
        if self.take(&['(']).is_some() {
            let inner = self.sum()?;
            return self.take(&[')']).map(|_| inner).ok_or_else(|| self.error("`)` is expected"));
        }
        self.skip_blanks();
        let rest = self.text.get(self.at..).unwrap_or_default();
        let is_word = |next: char| next.is_ascii_alphanumeric() || next == '_' || next == '.';
        let word = &rest[..rest.find(|next| !is_word(next)).unwrap_or(rest.len())];
        let node = match word.chars().next() {
            Some(first) if first.is_ascii_digit() => {
                word.parse().ok().filter(|number: &f64| number.is_finite()).map(Node::Number)
            }
            Some(first) if first.is_ascii_lowercase() && !word.contains('.') => Some(Node::Metric(word.to_owned())),
            _ => None,
        };
        let node = node.ok_or_else(|| self.error("a metric, a number or `(` is expected"))?;
        self.at += word.len();
        Ok(node)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn evaluate(text: &str) -> Option<f64> {
        let value_of = |name: &str| match name {
            "clicks" => Some(3.0),
            "impressions" => Some(12.0),
            "zero" => Some(0.0),
            _ => None,
        };
        Expression::parse(text).unwrap().evaluate(&value_of)
    }

    #[test]
    fn evaluates_with_the_usual_precedence() {
        assert_eq!(evaluate("clicks / impressions"), Some(0.25));
        assert_eq!(evaluate("1 + 2 * clicks - -1"), Some(8.0));
        assert_eq!(evaluate("(1+2)*clicks/(impressions - 3)"), Some(1.0));
        assert_eq!(evaluate("clicks / zero"), None);
        assert_eq!(evaluate("clicks + unknown"), None);
        assert_eq!(Expression::parse("a / b + a").unwrap().metrics(), ["a", "b"]);
    }

    #[test]
    fn errors_say_where() {
        for (text, position) in [("", 1), ("clicks /", 9), ("(clicks", 8), ("a b", 3), ("ü", 1), ("1..2", 1), ("A", 1)]
        {
            assert_eq!(Expression::parse(text).unwrap_err().position, position, "{text}");
        }
        assert!(Expression::parse(&"(".repeat(500)).is_err());
        assert!(Expression::parse(&"-".repeat(500)).is_err());
        assert!(Expression::parse(&"1".repeat(2_000)).is_err());
    }
}
