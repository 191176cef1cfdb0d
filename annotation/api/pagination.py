"""Pagination of API lists, with a maximum page size."""

from typing import Any

from rest_framework import pagination
from rest_framework.views import APIView

MAX_ROWS = 1_000


class LimitOffsetPagination(pagination.LimitOffsetPagination):
    """DRF's `limit` and `offset`; a maximum keeps one request from reading a whole table."""

    max_limit = MAX_ROWS
    limit_query_description = (
        f"Rows per page, at most {MAX_ROWS:,}: more are not given, and `next` leads to the rest."
    )

    def get_schema_operation_parameters(self, view: APIView) -> list[dict[str, Any]]:
        parameters = super().get_schema_operation_parameters(view)
        bounds = {
            self.limit_query_param: {
                "minimum": 1,
                "maximum": MAX_ROWS,
                "default": self.default_limit,
            },
            self.offset_query_param: {"minimum": 0, "default": 0},
        }
        for parameter in parameters:
            parameter["schema"] |= bounds[parameter["name"]]
        return parameters
