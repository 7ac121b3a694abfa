"""What the service says to programs that speak WebDAV, in English and Spanish."""

from __future__ import annotations

DAV: dict[str, tuple[str, str]] = {
    "locked": (
        "A program has this open and has locked it (WebDAV); try again when it is closed there.",
        "Un programa lo tiene abierto y bloqueado (WebDAV); inténtelo de nuevo cuando se cierre allí.",
    ),
    "lock_conflict": (
        "This is locked already, or something in it is.",
        "Esto, o algo que contiene, ya está bloqueado.",
    ),
    "lock_unknown": (
        "There is no such lock here (any more).",
        "Aquí no existe (o ya no existe) ese bloqueo.",
    ),
    "lock_kind": ("Only write locks, shared or exclusive, are known.", "Solo se conocen bloqueos de escritura."),
    "lock_others": ("Somebody else has taken this lock.", "Este bloqueo es de otra persona."),
    "locks_many": ("There are too many locks.", "Hay demasiados bloqueos."),
    "dav_if": ("The If field cannot be understood.", "El campo If no se entiende."),
    "dav_xml": ("The XML of the request cannot be understood.", "El XML de la petición no se entiende."),
    "dav_doctype": (
        "XML with a document type or entities is not accepted.",
        "No se acepta XML con tipo de documento ni entidades.",
    ),
    "dav_large": ("The XML of the request is too large.", "El XML de la petición es demasiado grande."),
    "dav_field": ("The {field} field cannot be understood.", "El campo {field} no se entiende."),
    "dav_destination": ("The Destination field is missing.", "Falta el campo Destination."),
    "dav_elsewhere": (
        "The destination is not among the files of this server.",
        "El destino no está entre los archivos de este servidor.",
    ),
    "dav_depth": (
        "A folder is described with Depth 0 or 1, not with everything below.",
        "Una carpeta se describe con Depth 0 o 1, no con todo lo que contiene.",
    ),
    "onto_itself": ("Source and destination are the same.", "El origen y el destino son el mismo."),
    "properties_full": (
        "This file system keeps no more properties of this file.",
        "Este sistema de archivos no guarda más propiedades de este archivo.",
    ),
    "properties_none": (
        "This file system keeps no properties.",
        "Este sistema de archivos no guarda propiedades.",
    ),
}
