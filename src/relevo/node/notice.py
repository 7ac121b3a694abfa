"""An alert in words, in English and Spanish, and as the JSON object that webhooks and commands get."""

from __future__ import annotations

from relevo.base.control import Message
from relevo.config.alerts import Language
from relevo.node.trouble import Alert

_RAISED = {
    "en": {
        "node_lost": "Server {0} is lost: nobody hears it.",
        "one_copy": "Only one current copy of mirror {0} is left, or none. The next failure stops its service.",
        "resync_stuck": "The resync of mirror {0} does not move.",
        "split_brain": "Split brain: both copies of mirror {0} were changed apart. A person has to decide.",
        "witness_lost": "The witness does not answer. The next failure may need a person.",
        "ping_lost": "Server {0} has lost a ping target: clients may not reach it.",
        "configuration_differs": "The servers' relevo.toml differ: services do not go back meanwhile.",
        "configuration_unread": "{0} has not read its changed relevo.toml: its daemons have to be restarted.",
        "service_down": "Service {0} runs nowhere.",
        "service_twice": "Service {0} runs on two servers at once.",
        "service_blocked": "Service {0} cannot go on without a person.",
        "certificate": "The TLS certificate of {0} cannot be used, is over, or soon will be: relevo check says which.",
    },
    "es": {
        "node_lost": "Se ha perdido el servidor {0}: nadie lo oye.",
        "one_copy": "Queda una sola copia al día del espejo {0}, o ninguna. El próximo fallo detiene su servicio.",
        "resync_stuck": "La resincronización del espejo {0} no avanza.",
        "split_brain": "Split brain: las copias del espejo {0} cambiaron por separado. Tiene que decidir una persona.",
        "witness_lost": "El testigo no responde. El próximo fallo puede necesitar a una persona.",
        "ping_lost": "El servidor {0} ha perdido un destino de ping: puede que los clientes no lleguen a él.",
        "configuration_differs": "Los relevo.toml de los servidores difieren: los servicios no vuelven mientras tanto.",
        "configuration_unread": "{0} no ha leído su relevo.toml cambiado: hay que reiniciar sus demonios.",
        "service_down": "El servicio {0} no corre en ningún servidor.",
        "service_twice": "El servicio {0} corre en dos servidores a la vez.",
        "service_blocked": "El servicio {0} no puede seguir sin una persona.",
        "certificate": "El certificado TLS de {0} no sirve, ha caducado o caduca pronto: relevo check dice cuál.",
    },
}
_CLEARED = {
    "en": {
        "node_lost": "Server {0} is back, or has said goodbye.",
        "one_copy": "Mirror {0} has two current copies again.",
        "resync_stuck": "The resync of mirror {0} moves again, or has ended.",
        "split_brain": "The split brain of mirror {0} is resolved.",
        "witness_lost": "The witness answers again.",
        "ping_lost": "Server {0} has not lost any ping target any more.",
        "configuration_differs": "The servers' configurations agree again.",
        "configuration_unread": "{0} goes by its present relevo.toml again.",
        "service_down": "Service {0} runs again.",
        "service_twice": "Service {0} runs on two servers no longer.",
        "service_blocked": "Service {0} is no longer blocked.",
        "certificate": "The TLS certificate of {0} is in order again.",
    },
    "es": {
        "node_lost": "El servidor {0} ha vuelto, o se ha despedido.",
        "one_copy": "El espejo {0} vuelve a tener dos copias al día.",
        "resync_stuck": "La resincronización del espejo {0} vuelve a avanzar, o ha terminado.",
        "split_brain": "El split brain del espejo {0} está resuelto.",
        "witness_lost": "El testigo vuelve a responder.",
        "ping_lost": "El servidor {0} ya no tiene perdido ningún destino de ping.",
        "configuration_differs": "Las configuraciones de los servidores vuelven a coincidir.",
        "configuration_unread": "{0} vuelve a regirse por su relevo.toml actual.",
        "service_down": "El servicio {0} vuelve a correr.",
        "service_twice": "El servicio {0} ya no corre en dos servidores a la vez.",
        "service_blocked": "El servicio {0} ya no está bloqueado.",
        "certificate": "El certificado TLS de {0} vuelve a estar en orden.",
    },
}
_TEST = {"en": "This is a test of the alerts: nothing has happened.", "es": "Prueba de los avisos: no ha pasado nada."}
_WORD = {
    "en": {"raised": "alert", "cleared": "all clear", "test": "test"},
    "es": {"raised": "aviso", "cleared": "todo en orden", "test": "prueba"},
}
_CLOSING = {
    "en": "Cluster {0}, told by {1} at {2}. More: relevo status.",
    "es": "Clúster {0}; avisa {1}, a las {2}. Más: relevo status.",
}


def text_of(alert: Alert, language: Language) -> str:
    """One sentence or two."""
    if alert.change == "test":
        return _TEST[language]
    unread = alert.kind == "configuration_differs" and alert.subject
    texts = (_RAISED if alert.change == "raised" else _CLEARED)[language]
    return texts["configuration_unread" if unread else alert.kind].format(alert.subject)


def notice_of(alert: Alert, language: Language, *, cluster: str, node: str, at: str) -> Message:
    """What webhooks and commands get. `at` is ISO 8601 in UTC; `node` the server that tells."""
    return {
        "cluster": cluster,
        "node": node,
        "at": at,
        "change": alert.change,
        "kind": alert.kind,
        "subject": alert.subject,
        "text": text_of(alert, language),
    }


def mail_of(notice: Message, language: Language) -> tuple[str, str]:
    """Subject line and body of the mail."""
    word = _WORD[language][notice["change"]]
    closing = _CLOSING[language].format(notice["cluster"], notice["node"], notice["at"])
    return f"[{notice['cluster']}] {word}: {notice['text']}", f"{notice['text']}\n\n{closing}\n"
