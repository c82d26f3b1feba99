//! Secret polynomials over the scalars of the curve, their Feldman commitments, and interpolation.
//!
//! A share with index `i` lies at the evaluation point `i + 1`.

use cggmp21::generic_ec::{Point, Scalar, SecretScalar};
use rand_core::{CryptoRng, RngCore};

use crate::ecdsa::Curve;
use crate::ecdsa::public::PublicPoint;

/// A secret polynomial; coefficients from the constant one on. Wiped when dropped.
pub(super) struct Polynomial(Vec<SecretScalar<Curve>>);

/// Feldman commitments (Feldman 1987): the polynomial's coefficients times the generator.
#[derive(Clone)]
pub(super) struct Commitments(Vec<Point<Curve>>);

impl Polynomial {
    /// A random polynomial with `count` coefficients, of which `constant` is the first. No coefficient drawn is zero.
    pub(super) fn random(constant: SecretScalar<Curve>, count: u16, rng: &mut (impl RngCore + CryptoRng)) -> Self {
        let random = (1..count).map(|_| SecretScalar::random(rng));
        Self(std::iter::once(constant).chain(random).collect())
    }

    /// The polynomial with these coefficients.
    #[cfg(test)]
    pub(super) fn of(coefficients: Vec<SecretScalar<Curve>>) -> Self {
        Self(coefficients)
    }

    /// The constant coefficient.
    pub(super) fn constant(&self) -> SecretScalar<Curve> {
        self.0.first().cloned().unwrap_or_else(SecretScalar::zero)
    }

    /// The value for the share with `index`.
    pub(super) fn evaluate(&self, index: u16) -> SecretScalar<Curve> {
        let point = evaluation_point(index);
        self.0.iter().rev().fold(SecretScalar::zero(), |sum, coefficient| {
            let shifted = SecretScalar::new(&mut (point * &sum));
            SecretScalar::new(&mut (&shifted + coefficient.as_ref()))
        })
    }

    pub(super) fn commit(&self) -> Commitments {
        Commitments(self.0.iter().map(|coefficient| Point::generator() * coefficient).collect())
    }
}

impl Commitments {
    /// Takes a dealer's commitments, none of which is the identity.
    pub(super) fn new(points: impl Iterator<Item = PublicPoint>) -> Self {
        Self(points.map(PublicPoint::into_inner).collect())
    }

    pub(super) fn points(&self) -> &[Point<Curve>] {
        &self.0
    }

    /// The commitment to the constant coefficient.
    pub(super) fn constant(&self) -> Point<Curve> {
        self.0.first().copied().unwrap_or_else(Point::zero)
    }

    /// The commitment to the value for the share with `index`.
    pub(super) fn evaluate(&self, index: u16) -> Point<Curve> {
        let point = evaluation_point(index);
        self.0.iter().rev().fold(Point::zero(), |sum, coefficient| sum * point + coefficient)
    }

    /// The commitments to the sum of two polynomials with as many coefficients.
    pub(super) fn add(&self, other: &Self) -> Self {
        Self(self.0.iter().zip(&other.0).map(|(a, b)| a + b).collect())
    }
}

/// The sum of two secrets.
pub(super) fn add_secret(a: &SecretScalar<Curve>, b: &SecretScalar<Curve>) -> SecretScalar<Curve> {
    SecretScalar::new(&mut (a + b.as_ref()))
}

/// The Lagrange coefficient at zero of the share with `index` among the shares with `indices`; `None` if two are equal or
/// `index` is not one of them.
pub(super) fn lagrange_at_zero(index: u16, indices: impl Iterator<Item = u16>) -> Option<Scalar<Curve>> {
    let own = evaluation_point(index);
    let mut found = false;
    let (mut numerator, mut denominator) = (Scalar::one(), Scalar::one());
    for other in indices {
        if other == index {
            if found {
                return None;
            }
            found = true;
            continue;
        }
        let point = evaluation_point(other);
        numerator *= point;
        denominator *= point - own;
    }
    Some(numerator * denominator.invert()?).filter(|_| found)
}

fn evaluation_point(index: u16) -> Scalar<Curve> {
    Scalar::from(index) + Scalar::one()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use rand::rngs::OsRng;

    use super::*;

    fn scalar(secret: &SecretScalar<Curve>) -> Scalar<Curve> {
        *secret.as_ref()
    }

    #[test]
    fn a_quorum_of_values_interpolates_to_the_constant_and_fewer_do_not() {
        let polynomial = Polynomial::random(SecretScalar::random(&mut OsRng), 3, &mut OsRng);
        let interpolate = |indices: &[u16]| {
            indices.iter().fold(Scalar::zero(), |sum, index| {
                sum + lagrange_at_zero(*index, indices.iter().copied()).unwrap() * polynomial.evaluate(*index)
            })
        };
        let secret = scalar(&polynomial.constant());
        for indices in [[0, 1, 2], [0, 2, 4], [7, 3, 60_000]] {
            assert_eq!(interpolate(&indices), secret);
        }
        assert_ne!(interpolate(&[0, 1]), secret);
    }

    #[test]
    fn commitments_evaluate_to_the_values_commitments() {
        let polynomial = Polynomial::random(SecretScalar::random(&mut OsRng), 4, &mut OsRng);
        let other = Polynomial::random(SecretScalar::random(&mut OsRng), 4, &mut OsRng);
        let sum = polynomial.commit().add(&other.commit());
        for index in [0, 1, 5, u16::MAX] {
            let value = polynomial.evaluate(index);
            assert_eq!(polynomial.commit().evaluate(index), Point::generator() * &value);
            let both = add_secret(&value, &other.evaluate(index));
            assert_eq!(sum.evaluate(index), Point::generator() * &both);
        }
        assert_eq!(sum.constant(), polynomial.commit().constant() + other.commit().constant());
    }

    #[test]
    fn repeated_and_missing_indices_do_not_interpolate() {
        assert!(lagrange_at_zero(1, [1, 1, 2].into_iter()).is_none());
        assert!(lagrange_at_zero(1, [1, 2, 2].into_iter()).is_some(), "repeats of others are refused where they count");
        assert!(lagrange_at_zero(3, [1, 2].into_iter()).is_none());
    }
}
