//! Pages of long lists.

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::error::{ApiError, ApiResult};

/// Entries of a page when the request does not say.
const LIMIT_DEFAULT: u32 = 20;
/// The most entries of a page.
const LIMIT_MAX: u32 = 100;

/// Which page.
#[derive(Clone, Copy, Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct PageQuery {
    /// From 1 on; 1 when absent.
    #[param(example = 1, minimum = 1)]
    page: Option<u32>,
    /// Entries of a page; 20 when absent.
    #[param(example = 20, minimum = 1, maximum = 100)]
    limit: Option<u32>,
}

/// Which part of a list that is.
#[derive(Clone, Copy, Debug)]
pub(super) struct PageOf {
    page: u32,
    pub(super) limit: u32,
}

/// Where a page is among others.
#[derive(Debug, PartialEq, Eq, Serialize, ToSchema)]
pub(super) struct Pagination {
    /// From 1 on.
    #[schema(example = 1)]
    current_page: u32,
    /// 0 where there is nothing.
    #[schema(example = 5)]
    total_pages: u64,
    /// On all pages.
    #[schema(example = 100)]
    total_items: u64,
    /// At most.
    #[schema(example = 20)]
    items_per_page: u32,
    /// Whether there is a page behind this one.
    has_next: bool,
    /// Whether there is a page with entries before this one.
    has_previous: bool,
}

/// A page of a list.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Paged<T> {
    /// The entries.
    data: Vec<T>,
    /// Where they are.
    pagination: Pagination,
}

impl PageQuery {
    /// The page, if there can be such a one.
    pub(super) fn checked(self) -> ApiResult<PageOf> {
        let (page, limit) = (self.page.unwrap_or(1), self.limit.unwrap_or(LIMIT_DEFAULT));
        if page == 0 {
            return Err(ApiError::invalid("page must be at least 1"));
        }
        if !(1..=LIMIT_MAX).contains(&limit) {
            return Err(ApiError::invalid(format!("limit must be from 1 to {LIMIT_MAX}, not {limit}")));
        }
        Ok(PageOf { page, limit })
    }
}

impl PageOf {
    /// How many entries are before it.
    pub(super) fn offset(self) -> u64 {
        u64::from(self.page - 1) * u64::from(self.limit)
    }

    /// The page with its entries, of a list of `total`.
    pub(super) fn of<T>(self, data: Vec<T>, total: u64) -> Paged<T> {
        let total_pages = total.div_ceil(self.limit.into());
        let pagination = Pagination {
            current_page: self.page,
            total_pages,
            total_items: total,
            items_per_page: self.limit,
            has_next: u64::from(self.page) < total_pages,
            has_previous: self.page > 1 && total > 0,
        };
        Paged { data, pagination }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(page: u32, total: u64) -> Pagination {
        let query = PageQuery { page: Some(page), limit: Some(20) };
        query.checked().expect("a page").of(Vec::<u8>::new(), total).pagination
    }

    #[test]
    fn pages_know_their_neighbours() {
        let first = page(1, 41);
        assert_eq!((first.total_pages, first.has_next, first.has_previous), (3, true, false));
        let last = page(3, 41);
        assert_eq!((last.has_next, last.has_previous), (false, true));
        assert_eq!(page(1, 40).total_pages, 2);
        let empty = page(1, 0);
        assert_eq!((empty.total_pages, empty.has_next, empty.has_previous), (0, false, false));
        let offset = PageQuery { page: Some(u32::MAX), limit: Some(100) }.checked().expect("a page").offset();
        assert_eq!(offset, (u64::from(u32::MAX) - 1) * 100);
    }

    #[test]
    fn impossible_pages_are_refused() {
        for (page, limit) in [(0, 20), (1, 0), (1, 101)] {
            assert!(PageQuery { page: Some(page), limit: Some(limit) }.checked().is_err());
        }
        let usual = PageQuery { page: None, limit: None }.checked().expect("a page");
        assert_eq!((usual.page, usual.limit, usual.offset()), (1, 20, 0));
    }
}
