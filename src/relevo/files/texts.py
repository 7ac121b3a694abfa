"""Every sentence that the service says, in English and Spanish."""

from __future__ import annotations

import re
from collections.abc import Sequence

from relevo.files.texts_accounts import ACCOUNTS
from relevo.files.texts_admin import ADMIN
from relevo.files.texts_dav import DAV
from relevo.files.texts_links import LINKS
from relevo.files.texts_pages import PAGES
from relevo.files.texts_script import SCRIPT

LANGUAGES = ("en", "es")
DEFAULT_LANGUAGE = "en"

TEXTS: dict[str, tuple[str, str]] = {
    # --- errors -------------------------------------------------------------------------------------------------------
    "not_found": ("There is nothing at this address.", "No hay nada en esta dirección."),
    "bad_path": ("This address is not a path to a file.", "Esta dirección no es la ruta de un archivo."),
    "bad_name": (
        "A name may not be empty, “.” or “..”, nor contain “/” or control characters.",
        "Un nombre no puede estar vacío, ni ser «.» o «..», ni contener «/» o caracteres de control.",
    ),
    "name_too_long": (
        "A name is longer than {bytes} bytes, or the whole path is too long.",
        "Un nombre ocupa más de {bytes} bytes, o la ruta entera es demasiado larga.",
    ),
    "reserved": ("This name is reserved for the service.", "Este nombre está reservado para el servicio."),
    "is_folder": ("There is a folder of this name.", "Existe una carpeta con este nombre."),
    "not_folder": (
        "A part of this path is a file, not a folder.",
        "Una parte de esta ruta es un archivo, no una carpeta.",
    ),
    "folder_gone": ("The folder of this file has just been deleted.", "La carpeta de este archivo acaba de borrarse."),
    "file_slash": ("The address of a file does not end with “/”.", "La dirección de un archivo no termina en «/»."),
    "parent_missing": ("The folder above does not exist.", "La carpeta superior no existe."),
    "exists": ("There is already something of this name.", "Ya existe algo con este nombre."),
    "inside_itself": (
        "A folder cannot be put into itself.",
        "Una carpeta no se puede poner dentro de sí misma.",
    ),
    "bin_gone": ("This is not in the bin (any more).", "Esto no está (o ya no está) en la papelera."),
    "zip_many": (
        "There are more than {n} files and folders in it: fetch it in parts.",
        "Contiene más de {n} archivos y carpetas: descárguelo por partes.",
    ),
    "items_many": (
        "At most {n} things can be chosen at once.",
        "Se pueden elegir como mucho {n} elementos a la vez.",
    ),
    "no_item": ("Nothing was chosen.", "No se eligió nada."),
    "not_empty": (
        "The folder is not empty; to delete it with everything in it, say so (recursive=1).",
        "La carpeta no está vacía; para borrarla con todo su contenido, indíquelo (recursive=1).",
    ),
    "forbidden": ("Access is denied.", "Acceso denegado."),
    "link": ("This is a link, and links are not followed.", "Esto es un enlace, y los enlaces no se siguen."),
    "not_regular": ("This is neither a file nor a folder.", "Esto no es un archivo ni una carpeta."),
    "foreign_page": (
        "A page of another site may not change files here.",
        "Una página de otro sitio no puede cambiar archivos aquí.",
    ),
    "full": ("The volume is full.", "El volumen está lleno."),
    "no_room": (
        "The volume has {free} free, and this needs {needed}.",
        "El volumen tiene {free} libres, y esto necesita {needed}.",
    ),
    "too_large": ("The file is too large.", "El archivo es demasiado grande."),
    "read_only": (
        "The volume is read-only: nothing can be changed now.",
        "El volumen es de solo lectura: ahora no se puede cambiar nada.",
    ),
    "disk_error": ("The disk reported an error.", "El disco ha comunicado un error."),
    "stuck": (
        "The volume does not answer at the moment; try again.",
        "El volumen no responde en este momento; inténtelo de nuevo.",
    ),
    "busy": ("The server is busy; try again.", "El servidor está ocupado; inténtelo de nuevo."),
    "closed": (
        "This server does not hold the files at the moment; try again.",
        "Este servidor no tiene los archivos en este momento; inténtelo de nuevo.",
    ),
    "degraded": (
        "Only one copy could be stored now, and the configuration asks for two.",
        "Ahora solo se podría guardar una copia, y la configuración exige dos.",
    ),
    "precondition": (
        "The file is not (any more) the one that the request expects.",
        "El archivo no es (o ya no es) el que la petición espera.",
    ),
    "range": ("The file does not have the part asked for.", "El archivo no tiene la parte pedida."),
    "digest_mismatch": (
        "What arrived does not have the checksum that was announced; nothing was stored.",
        "Lo recibido no tiene la suma de comprobación anunciada; no se ha guardado nada.",
    ),
    "bad_digest": ("The checksum field cannot be read.", "El campo de la suma de comprobación no se puede leer."),
    "bad_length": ("The length announced is not a number.", "La longitud anunciada no es un número."),
    "cut_off": ("The upload broke off; nothing was stored.", "La subida se interrumpió; no se ha guardado nada."),
    "trickle": (
        "Nothing or next to nothing arrived for {seconds} seconds; nothing was stored.",
        "No llegó nada o casi nada durante {seconds} segundos; no se ha guardado nada.",
    ),
    "no_part": ("A part of a file cannot be stored this way.", "No se puede guardar así una parte de un archivo."),
    "no_encoding": (
        "Compressed request bodies are not understood.",
        "No se entienden los cuerpos de petición comprimidos.",
    ),
    "method": ("This cannot be done here.", "Esto no se puede hacer aquí."),
    "form": ("The form is not understood.", "El formulario no se entiende."),
    "no_file": ("No file was chosen.", "No se eligió ningún archivo."),
    "tus_version": (
        "This version of the upload protocol is not spoken here.",
        "No se habla esta versión del protocolo.",
    ),
    "tus_metadata": (
        "The upload does not say where it belongs (path or filename).",
        "La subida no dice dónde va (path o filename).",
    ),
    "tus_type": ("The content type of a part must be {type}.", "El tipo de contenido de una parte debe ser {type}."),
    "tus_offset": (
        "The upload stands at {offset}; continue from there.",
        "La subida va por {offset}; continúe desde ahí.",
    ),
    "tus_gone": (
        "This upload does not exist; it has expired or was given up.",
        "Esta subida no existe; ha caducado o se abandonó.",
    ),
    "tus_locked": (
        "The broken-off attempt of this upload still holds it; try again.",
        "El intento interrumpido de esta subida aún la retiene; inténtelo de nuevo.",
    ),
    "tus_overflow": ("More arrived than was announced.", "Llegó más de lo anunciado."),
    "tus_many": ("There are too many unfinished uploads.", "Hay demasiadas subidas sin terminar."),
    "internal": (
        "The service failed; the reason is in its log.",
        "El servicio ha fallado; el motivo está en su registro.",
    ),
    **PAGES,
    **ACCOUNTS,
    **LINKS,
    **ADMIN,
    **SCRIPT,
    **DAV,
}

_TAG = re.compile(r"\s*([A-Za-z]{1,8}|\*)(?:-[A-Za-z0-9-]*)?\s*(?:;\s*q\s*=\s*([0-9.]+))?\s*")


def text(language: str, code: str, **params: object) -> str:
    """A sentence in a language; parameters that it does not mention are ignored."""
    sentence = TEXTS[code][LANGUAGES.index(language)]
    return sentence.format(**params) if "{" in sentence else sentence


def choose(accept_language: str, known: Sequence[str] = LANGUAGES) -> str:
    """The best of our languages for an Accept-Language field (RFC 9110, 12.5.4); English when none fits."""
    best, best_quality = DEFAULT_LANGUAGE, 0.0
    for part in accept_language.split(","):
        match = _TAG.fullmatch(part)
        if match is None:
            continue
        try:
            quality = float(match[2] or 1)
        except ValueError:
            continue
        tag = match[1].lower()
        language = DEFAULT_LANGUAGE if tag == "*" else tag
        if language in known and quality > best_quality:
            best, best_quality = language, quality
    return best
