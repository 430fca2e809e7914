//! The part of PromQL that the rules use, as a tree of our own: what is none of it is refused when the rules are loaded,
//! so that evaluating cannot fail.

use promql_parser::{
    label::Matcher,
    parser::{
        AggregateExpr, BinaryExpr, Call, Expr, LabelModifier, MatrixSelector, VectorMatchCardinality, VectorSelector,
        token::{
            T_ADD, T_AVG, T_COUNT, T_DIV, T_EQLC, T_GTE, T_GTR, T_LAND, T_LSS, T_LTE, T_LUNLESS, T_MAX, T_MIN, T_MUL,
            T_NEQ, T_SUB, T_SUM, TokenType,
        },
    },
};

/// An expression.
#[derive(Clone, Debug)]
pub(super) enum Query {
    Number(f64),
    /// `time()`: the moment of evaluation in Unix time.
    Now,
    /// The newest sample of each series.
    Select(Selector),
    /// Something of each series' samples in a time that ends now.
    Range {
        function: RangeFunction,
        selector: Selector,
        range_ms: i64,
    },
    /// `histogram_quantile`.
    Quantile {
        quantile: f64,
        of: Box<Query>,
    },
    Aggregate {
        how: Aggregate,
        grouping: Grouping,
        of: Box<Query>,
    },
    Binary {
        operator: Operator,
        left: Box<Query>,
        right: Box<Query>,
        matching: Matching,
    },
    Set {
        operator: SetOperator,
        left: Box<Query>,
        right: Box<Query>,
        matching: Matching,
    },
}

/// Which series.
#[derive(Clone, Debug)]
pub(super) struct Selector {
    pub(super) name: String,
    pub(super) matchers: Vec<Matcher>,
}

/// What is made of a series' samples.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum RangeFunction {
    Rate,
    Increase,
    Delta,
    Changes,
    /// Where a straight line through them is so many seconds from now.
    PredictLinear(f64),
}

/// What is made of the samples of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Aggregate {
    Sum,
    Min,
    Max,
    Avg,
    Count,
}

/// Which labels tell groups apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Grouping {
    By(Vec<String>),
    Without(Vec<String>),
}

/// Which labels must be alike on both sides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Matching {
    On(Vec<String>),
    Ignoring(Vec<String>),
}

/// Between two numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operator {
    Add,
    Subtract,
    Multiply,
    Divide,
    Equal,
    NotEqual,
    Above,
    Below,
    AtLeast,
    AtMost,
}

/// Between two sets of series.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SetOperator {
    And,
    Unless,
}

/// What is not supported.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{0}")]
pub(super) struct Unsupported(String);

fn unsupported<T>(what: impl std::fmt::Display) -> Result<T, Unsupported> {
    Err(Unsupported(format!("the server does not evaluate {what} itself")))
}

impl Operator {
    /// Whether it keeps or drops samples instead of computing.
    pub(super) const fn is_comparison(self) -> bool {
        !matches!(self, Self::Add | Self::Subtract | Self::Multiply | Self::Divide)
    }
}

impl Selector {
    /// Whether it selects a series with these labels.
    pub(super) fn takes(&self, label: impl Fn(&str) -> String) -> bool {
        self.matchers.iter().all(|matcher| matcher.is_match(&label(&matcher.name)))
    }
}

impl Query {
    /// Reads an expression.
    pub(super) fn parse(text: &str) -> Result<Self, Unsupported> {
        let parsed = promql_parser::parser::parse(text).map_err(Unsupported)?;
        compile(&parsed)
    }

    /// Calls `visit` with every selector and how long back it looks.
    pub(super) fn each_selector(&self, visit: &mut impl FnMut(&Selector, i64)) {
        match self {
            Self::Number(_) | Self::Now => {}
            Self::Select(selector) => visit(selector, 0),
            Self::Range { selector, range_ms, .. } => visit(selector, *range_ms),
            Self::Quantile { of, .. } | Self::Aggregate { of, .. } => of.each_selector(visit),
            Self::Binary { left, right, .. } | Self::Set { left, right, .. } => {
                left.each_selector(visit);
                right.each_selector(visit);
            }
        }
    }

    /// Its value, where that needs no samples.
    fn constant(&self) -> Option<f64> {
        match self {
            Self::Number(value) => Some(*value),
            Self::Binary { operator, left, right, .. } => operator.compute(left.constant()?, right.constant()?),
            _ => None,
        }
    }
}

impl Operator {
    /// The result of a computation; `None` of a comparison.
    pub(super) fn compute(self, left: f64, right: f64) -> Option<f64> {
        match self {
            Self::Add => Some(left + right),
            Self::Subtract => Some(left - right),
            Self::Multiply => Some(left * right),
            Self::Divide => Some(left / right),
            _ => None,
        }
    }

    /// Whether a comparison holds; never where one side is no number, but for `!=`.
    pub(super) fn holds(self, left: f64, right: f64) -> bool {
        match self {
            Self::Equal => left == right,
            Self::NotEqual => left != right,
            Self::Above => left > right,
            Self::Below => left < right,
            Self::AtLeast => left >= right,
            Self::AtMost => left <= right,
            Self::Add | Self::Subtract | Self::Multiply | Self::Divide => false,
        }
    }
}

fn compile(expr: &Expr) -> Result<Query, Unsupported> {
    match expr {
        Expr::NumberLiteral(number) => Ok(Query::Number(number.val)),
        Expr::Paren(paren) => compile(&paren.expr),
        Expr::VectorSelector(selector) => Ok(Query::Select(self::selector(selector)?)),
        Expr::Call(call) => function(call),
        Expr::Aggregate(aggregation) => aggregate(aggregation),
        Expr::Binary(operation) => binary(operation),
        other => unsupported(format!("`{other}`")),
    }
}

fn selector(selector: &VectorSelector) -> Result<Selector, Unsupported> {
    if selector.offset.is_some() || selector.at.is_some() || !selector.matchers.or_matchers.is_empty() {
        return unsupported(format!("`{selector}`"));
    }
    let Some(name) = &selector.name else { return unsupported("a selector without a name") };
    Ok(Selector { name: name.clone(), matchers: selector.matchers.matchers.clone() })
}

fn function(call: &Call) -> Result<Query, Unsupported> {
    let name = call.func.name;
    let arguments: Vec<&Expr> = call.args.args.iter().map(|argument| &**argument).collect();
    let range = |function, matrix: &MatrixSelector| {
        let range_ms = i64::try_from(matrix.range.as_millis()).unwrap_or(i64::MAX);
        Ok(Query::Range { function, selector: selector(&matrix.vs)?, range_ms })
    };
    let constant = |expr: &Expr| match compile(expr)?.constant() {
        Some(value) => Ok(value),
        None => unsupported(format!("`{name}` of a number that changes")),
    };
    match (name, arguments.as_slice()) {
        ("rate", [Expr::MatrixSelector(matrix)]) => range(RangeFunction::Rate, matrix),
        ("increase", [Expr::MatrixSelector(matrix)]) => range(RangeFunction::Increase, matrix),
        ("delta", [Expr::MatrixSelector(matrix)]) => range(RangeFunction::Delta, matrix),
        ("changes", [Expr::MatrixSelector(matrix)]) => range(RangeFunction::Changes, matrix),
        ("predict_linear", [Expr::MatrixSelector(matrix), seconds]) => {
            range(RangeFunction::PredictLinear(constant(seconds)?), matrix)
        }
        ("time", []) => Ok(Query::Now),
        ("histogram_quantile", [quantile, of]) => {
            Ok(Query::Quantile { quantile: constant(quantile)?, of: Box::new(compile(of)?) })
        }
        _ => unsupported(format!("`{name}`")),
    }
}

fn aggregate(aggregation: &AggregateExpr) -> Result<Query, Unsupported> {
    let how = match aggregation.op.id() {
        T_SUM => Aggregate::Sum,
        T_MIN => Aggregate::Min,
        T_MAX => Aggregate::Max,
        T_AVG => Aggregate::Avg,
        T_COUNT => Aggregate::Count,
        _ => return unsupported(format!("`{}`", aggregation.op)),
    };
    let grouping = match &aggregation.modifier {
        None => Grouping::By(Vec::new()),
        Some(LabelModifier::Include(labels)) => Grouping::By(labels.labels.clone()),
        Some(LabelModifier::Exclude(labels)) => Grouping::Without(labels.labels.clone()),
    };
    Ok(Query::Aggregate { how, grouping, of: Box::new(compile(&aggregation.expr)?) })
}

fn binary(operation: &BinaryExpr) -> Result<Query, Unsupported> {
    let mut matching = Matching::Ignoring(Vec::new());
    if let Some(modifier) = &operation.modifier {
        let is_plain = matches!(modifier.card, VectorMatchCardinality::OneToOne | VectorMatchCardinality::ManyToMany);
        if !is_plain || modifier.return_bool {
            return unsupported(format!("`{operation}`"));
        }
        match &modifier.matching {
            Some(LabelModifier::Include(labels)) => matching = Matching::On(labels.labels.clone()),
            Some(LabelModifier::Exclude(labels)) => matching = Matching::Ignoring(labels.labels.clone()),
            None => {}
        }
    }
    let (left, right) = (Box::new(compile(&operation.lhs)?), Box::new(compile(&operation.rhs)?));
    match operator(operation.op)? {
        Either::Numbers(operator) => Ok(Query::Binary { operator, left, right, matching }),
        Either::Sets(operator) => Ok(Query::Set { operator, left, right, matching }),
    }
}

enum Either {
    Numbers(Operator),
    Sets(SetOperator),
}

fn operator(token: TokenType) -> Result<Either, Unsupported> {
    Ok(match token.id() {
        T_ADD => Either::Numbers(Operator::Add),
        T_SUB => Either::Numbers(Operator::Subtract),
        T_MUL => Either::Numbers(Operator::Multiply),
        T_DIV => Either::Numbers(Operator::Divide),
        T_EQLC => Either::Numbers(Operator::Equal),
        T_NEQ => Either::Numbers(Operator::NotEqual),
        T_GTR => Either::Numbers(Operator::Above),
        T_LSS => Either::Numbers(Operator::Below),
        T_GTE => Either::Numbers(Operator::AtLeast),
        T_LTE => Either::Numbers(Operator::AtMost),
        T_LAND => Either::Sets(SetOperator::And),
        T_LUNLESS => Either::Sets(SetOperator::Unless),
        _ => return unsupported(format!("`{token}`")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_rules_do_not_use_is_refused() {
        for text in [
            "x offset 5m",
            "x or y",
            "x > bool 1",
            "x * on (a) group_left y",
            "topk(3, x)",
            "rate(x[5m:1m])",
            "predict_linear(x[5m], y)",
            "absent(x)",
            "{job=\"antiphon\"}",
            "x +",
        ] {
            assert!(Query::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn selectors_are_found_with_how_far_they_look_back() {
        let query = Query::parse("sum by (a) (rate(x[5m])) / y > 4 * 3600 and z{b!=\"c\"}").expect("supported");
        let mut found = Vec::new();
        query.each_selector(&mut |selector, range_ms| found.push((selector.name.clone(), range_ms)));
        assert_eq!(found, [("x".to_owned(), 300_000), ("y".to_owned(), 0), ("z".to_owned(), 0)]);
    }
}
