"""Recognize secrets by their name and keep their values out of what is printed or stored. Imports nothing of Lyra's."""

from lyra_tasks.redaction.names import is_secret_name as is_secret_name
from lyra_tasks.redaction.names import strip_url_credentials as strip_url_credentials
from lyra_tasks.redaction.redactor import MIN_REDACTED_LENGTH as MIN_REDACTED_LENGTH
from lyra_tasks.redaction.redactor import create_redactor as create_redactor
from lyra_tasks.redaction.redactor import redact as redact
