# escape=`
FROM mcr.microsoft.com/windows/servercore:ltsc2022
SHELL ["powershell", "-Command", "$ErrorActionPreference = 'Stop';"]
ENV TARGET="C:\app\bin"
RUN New-Item -ItemType Directory -Path $env:TARGET ; `
    # a comment
    Write-Host done
WORKDIR C:\app
COPY src\ C:\app\
CMD ["C:\\app\\bin\\run.exe"]
