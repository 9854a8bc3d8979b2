"""The REST side of a simulated exchange, pure: a request and a time in, a response out."""

from abc import ABC, abstractmethod
from collections.abc import Mapping

from attrs import define, evolve

from .response_faults import ResponseFaults
from .wire import Request, Response, http_date

_PAGE = "<html><head><title>{0}</title></head><body>{0}</body></html>"


class ApiError(Exception):
    """An error answer in the exchange's form."""

    def __init__(self, response: Response) -> None:
        super().__init__(response)
        self.response = response


@define
class RestEndpoint(ABC):
    """``answer(request, now)``.  The only state is the client's budget."""

    faults: ResponseFaults

    @property
    @abstractmethod
    def weight(self) -> int:
        """Request weight of all requests so far."""

    @abstractmethod
    def respond(self, request: Request, now_ms: int) -> Response:
        """Raises ApiError."""

    def headers(self) -> Mapping[str, str]:
        """Of every response, beside its Date."""
        return {}

    def answer(self, request: Request, now_ms: int) -> Response:
        """One request -> one response; every one carries a Date."""
        try:
            response = self.respond(request, now_ms)
        except ApiError as error:
            response = error.response
        headers = {"Date": http_date(now_ms), **self.headers(), **response.headers}
        return evolve(response, headers=headers)


def front_end_page(status: int) -> Response:
    """What a gateway in front of the exchange answers: HTML, not JSON."""
    return Response(status, _PAGE.format(status).encode(), {"Content-Type": "text/html"})
