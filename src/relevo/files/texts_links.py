"""What the service says about share links, in English and Spanish."""

from __future__ import annotations

LINKS: dict[str, tuple[str, str]] = {
    "link_gone": (
        "This link does not exist (any more): it is over, or was withdrawn. Ask whoever sent it for another one.",
        "Este enlace no existe (o ya no existe): ha caducado o se ha retirado. Pida otro a quien se lo envió.",
    ),
    "link_password": ("This link has a password.", "Este enlace tiene una contraseña."),
    "link_password_note": (
        "Whoever sent you the link knows it.",
        "La conoce quien le envió el enlace.",
    ),
    "bad_link_password": ("The password is wrong.", "La contraseña no es correcta."),
    "link_maker": (
        "{name} may not give links to this: it takes the permission manage in its share.",
        "{name} no puede dar enlaces a esto: hace falta el permiso manage en su recurso compartido.",
    ),
    "tls_only": (
        "Only encrypted connections may do this here: use https.",
        "Aquí esto solo se puede hacer por una conexión cifrada: use https.",
    ),
    "link_time": ("The link would be over already.", "El enlace ya habría caducado."),
    "link_nothing": ("There is nothing at {path}.", "No hay nada en {path}."),
    "link_drop_folder": (
        "Only a folder can take files by a link.",
        "Solo una carpeta puede recibir archivos por un enlace.",
    ),
    # --- pages --------------------------------------------------------------------------------------------------------
    "share": ("Share", "Compartir"),
    "share_title": ("Share “{name}”", "Compartir «{name}»"),
    "share_note": (
        "Whoever has the link needs no account. It opens no more than you may open yourself, now and later.",
        "Quien tenga el enlace no necesita cuenta. No abre más de lo que usted mismo puede abrir, ahora y después.",
    ),
    "share_made": (
        "This is the link. It is shown only now: copy it.",
        "Este es el enlace. Solo se muestra ahora: cópielo.",
    ),
    "link_address": ("Address of the link", "Dirección del enlace"),
    "copy_address": ("Copy the address", "Copiar la dirección"),
    "link_make": ("Make a link", "Crear un enlace"),
    "link_for": ("With the link one can", "Con el enlace se puede"),
    "link_kind_read": ("see and download", "ver y descargar"),
    "link_kind_drop": ("only put files here", "solo dejar archivos aquí"),
    "link_until": ("It is valid for", "Es válido"),
    "link_day": ("1 day", "1 día"),
    "link_days": ("{n} days", "{n} días"),
    "link_never": ("until it is removed", "hasta que se retire"),
    "link_password_label": ("Password (may be left empty)", "Contraseña (puede quedar vacía)"),
    "links": ("Links", "Enlaces"),
    "links_mine": ("My links", "Mis enlaces"),
    "links_none": ("There are no links.", "No hay enlaces."),
    "link_what": ("Purpose", "Para qué"),
    "link_end": ("Valid until", "Válido hasta"),
    "link_use": ("Used", "Uso"),
    "link_used": ("opened {opened}×, fetched {n}×", "abierto {opened}×, descargado {n}×"),
    "link_used_drop": ("opened {opened}×, {n} files put", "abierto {opened}×, {n} archivos dejados"),
    "link_last": ("last on {when}", "la última vez el {when}"),
    "link_with_password": ("with password", "con contraseña"),
    "link_over": ("over", "caducado"),
    "link_remove": ("Withdraw", "Retirar"),
    "link_remove_named": ("Withdraw the link {id}", "Retirar el enlace {id}"),
    "link_removed": ("The link is withdrawn.", "El enlace se ha retirado."),
    "drop_title": ("Files for “{name}”", "Archivos para «{name}»"),
    "drop_note": (
        "What you put here reaches whoever sent you this link. Nothing that is there is shown or replaced.",
        "Lo que deje aquí le llega a quien le envió este enlace. No se muestra ni se reemplaza nada de lo que hay.",
    ),
    "drop_label": ("Choose files, or drag them here", "Elija archivos o arrástrelos aquí"),
    "drop_send": ("Send", "Enviar"),
}
